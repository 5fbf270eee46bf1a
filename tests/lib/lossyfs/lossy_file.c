#include "tests/lib/lossyfs/lossy_file.h"

#include "common/base/assert.h"
#include "common/base/mem.h"

/* A cache does not grow for ever: beyond so many changes the oldest is written back. */
#define CHANGES_MAX      8192
#define SECTORS_PER_PAGE (LOSSY_PAGE_SIZE / LOSSY_SECTOR_SIZE)

struct lossy_page {
    size_t refs;
    uint8_t bytes[LOSSY_PAGE_SIZE];
};

struct change {
    struct list_link link;
    bool is_resize;
    uint64_t begin, end;        /* the bytes of a write */
    uint64_t size;              /* of the file after it */
    struct lossy_page *pages[]; /* of a write: those that it touches, as they were after it */
};

enum fate { FATE_LOST, FATE_KEPT, FATE_TORN_SECTORS, FATE_TORN_PAGES };

/* -- pages -- */

static void page_unref(struct lossy_page *page)
{
    if (page != NULL && --page->refs == 0) {
        mem_free(page);
    }
}

static struct lossy_page *page_ref(struct lossy_page *page)
{
    if (page != NULL) {
        page->refs++;
    }
    return page;
}

static uint64_t page_of(uint64_t offset)
{
    return offset / LOSSY_PAGE_SIZE;
}

/* Pages that [begin, end) touches. */
static size_t pages_in(uint64_t begin, uint64_t end)
{
    return begin == end ? 0 : (size_t)(page_of(end - 1) - page_of(begin) + 1);
}

/* -- images -- */

static void image_reserve(struct lossy_image *image, size_t slots)
{
    if (slots > image->slots) {
        size_t wanted = MAX_OF(slots, image->slots * 2);
        image->pages = mem_realloc(image->pages, wanted * sizeof(struct lossy_page *));
        memset(
            image->pages + image->slots, 0, (wanted - image->slots) * sizeof(struct lossy_page *));
        image->slots = wanted;
    }
}

/* Takes over the reference. */
static void image_set(struct lossy_image *image, size_t index, struct lossy_page *page)
{
    if (page == NULL && index >= image->slots) {
        return;
    }
    image_reserve(image, index + 1);
    image->page_count += page != NULL ? 1 : 0;
    image->page_count -= image->pages[index] != NULL ? 1 : 0;
    page_unref(image->pages[index]);
    image->pages[index] = page;
}

static struct lossy_page *image_get(const struct lossy_image *image, size_t index)
{
    return index < image->slots ? image->pages[index] : NULL;
}

/* A page that nobody else has. */
static struct lossy_page *image_own(struct lossy_image *image, size_t index)
{
    struct lossy_page *old = image_get(image, index);
    if (old != NULL && old->refs == 1) {
        return old;
    }
    struct lossy_page *page = MEM_NEW(struct lossy_page);
    page->refs = 1;
    if (old != NULL) {
        memcpy(page->bytes, old->bytes, sizeof(page->bytes));
    }
    image_set(image, index, page);
    return page;
}

static void image_resize(struct lossy_image *image, uint64_t size)
{
    size_t tail = (size_t)(size % LOSSY_PAGE_SIZE);
    size_t index = (size_t)page_of(size);
    if (tail != 0 && image_get(image, index) != NULL) {
        memset(image_own(image, index)->bytes + tail, 0, LOSSY_PAGE_SIZE - tail);
    }
    for (index += tail != 0 ? 1 : 0; index < image->slots; index++) {
        image_set(image, index, NULL);
    }
    image->size = size;
}

static void image_copy(struct lossy_image *to, const struct lossy_image *from)
{
    image_resize(to, 0);
    for (size_t i = 0; i < from->slots; i++) {
        image_set(to, i, page_ref(from->pages[i]));
    }
    to->size = from->size;
}

static void image_deinit(struct lossy_image *image)
{
    image_resize(image, 0);
    mem_free(image->pages);
}

/* -- changes -- */

static size_t change_pages(const struct change *change)
{
    return change->is_resize ? 0 : pages_in(change->begin, change->end);
}

static void change_free(struct lossy_file *file, struct change *change)
{
    list_remove(&change->link);
    file->change_count--;
    for (size_t i = 0; i < change_pages(change); i++) {
        page_unref(change->pages[i]);
    }
    mem_free(change);
}

static void forget_changes(struct lossy_file *file)
{
    while (!list_is_empty(&file->changes)) {
        change_free(file, CONTAINER_OF(list_first(&file->changes), struct change, link));
    }
}

/* Sectors of one page of a write reach the disk; `prng`: each by chance. */
static void keep_page(
    struct lossy_image *stable, const struct change *change, size_t place, struct prng *prng)
{
    size_t index = (size_t)page_of(change->begin) + place;
    uint64_t page_begin = (uint64_t)index * LOSSY_PAGE_SIZE;
    uint64_t begin = MAX_OF(change->begin, page_begin) - page_begin;
    uint64_t end = MIN_OF(change->end, page_begin + LOSSY_PAGE_SIZE) - page_begin;
    size_t first = (size_t)(begin / LOSSY_SECTOR_SIZE);
    size_t last = (size_t)((end - 1) / LOSSY_SECTOR_SIZE);
    struct lossy_page *from = change->pages[place];
    if (prng == NULL && first == 0 && last == SECTORS_PER_PAGE - 1) {
        image_set(stable, index, page_ref(from));
        return;
    }
    struct lossy_page *to = image_own(stable, index);
    for (size_t i = first; i <= last; i++) {
        if (prng == NULL || prng_below(prng, 2) == 0) {
            size_t at = i * LOSSY_SECTOR_SIZE;
            memcpy(to->bytes + at, from->bytes + at, LOSSY_SECTOR_SIZE);
        }
    }
}

static void keep_write(
    struct lossy_image *stable, const struct change *change, enum fate fate, struct prng *prng)
{
    for (size_t i = 0; i < change_pages(change); i++) {
        if (fate == FATE_TORN_PAGES && prng_below(prng, 2) == 0) {
            continue;
        }
        keep_page(stable, change, i, fate == FATE_TORN_SECTORS ? prng : NULL);
    }
}

static void add_change(struct lossy_file *file, struct change *change)
{
    list_push_back(&file->changes, &change->link);
    if (++file->change_count <= CHANGES_MAX) {
        return;
    }
    struct change *oldest = CONTAINER_OF(list_first(&file->changes), struct change, link);
    if (oldest->is_resize) {
        image_resize(&file->stable, oldest->size);
    } else {
        keep_write(&file->stable, oldest, FATE_KEPT, NULL);
        file->stable.size = oldest->size;
    }
    change_free(file, oldest);
}

/* -- the file -- */

void lossy_file_init(struct lossy_file *file)
{
    *file = (struct lossy_file){0};
    list_init(&file->changes);
}

void lossy_file_deinit(struct lossy_file *file)
{
    forget_changes(file);
    image_deinit(&file->cached);
    image_deinit(&file->stable);
}

void lossy_file_write(struct lossy_file *file, uint64_t offset, struct bytes bytes)
{
    uint64_t end = offset + bytes.size;
    ASSERT(end <= LOSSY_FILE_SIZE_MAX);
    if (bytes.size == 0) {
        return;
    }
    size_t count = pages_in(offset, end);
    struct change *change = mem_zalloc(sizeof(*change) + count * sizeof(struct lossy_page *));
    for (uint64_t at = offset; at < end;) {
        size_t index = (size_t)page_of(at);
        size_t inside = (size_t)(at % LOSSY_PAGE_SIZE);
        size_t size = (size_t)MIN_OF(end - at, (uint64_t)(LOSSY_PAGE_SIZE - inside));
        struct lossy_page *page = image_own(&file->cached, index);
        memcpy(page->bytes + inside, bytes.data + (at - offset), size);
        change->pages[index - page_of(offset)] = page_ref(page);
        at += size;
    }
    file->cached.size = MAX_OF(file->cached.size, end);
    change->begin = offset;
    change->end = end;
    change->size = file->cached.size;
    add_change(file, change);
}

void lossy_file_resize(struct lossy_file *file, uint64_t size)
{
    ASSERT(size <= LOSSY_FILE_SIZE_MAX);
    struct change *change = MEM_NEW(struct change);
    image_resize(&file->cached, size);
    change->is_resize = true;
    change->size = size;
    add_change(file, change);
}

size_t lossy_file_pages_needed(const struct lossy_file *file, uint64_t offset, size_t size)
{
    size_t needed = 0;
    for (size_t i = 0; i < pages_in(offset, offset + size); i++) {
        needed += image_get(&file->cached, (size_t)page_of(offset) + i) == NULL ? 1 : 0;
    }
    return needed;
}

size_t lossy_file_read(const struct lossy_file *file, uint64_t offset, uint8_t *to, size_t size)
{
    uint64_t file_size = file->cached.size;
    uint64_t end = offset >= file_size ? offset : MIN_OF(file_size, offset + size);
    for (uint64_t at = offset; at < end;) {
        size_t inside = (size_t)(at % LOSSY_PAGE_SIZE);
        size_t part = (size_t)MIN_OF(end - at, (uint64_t)(LOSSY_PAGE_SIZE - inside));
        const struct lossy_page *page = image_get(&file->cached, (size_t)page_of(at));
        if (page == NULL) {
            memset(to + (at - offset), 0, part);
        } else {
            memcpy(to + (at - offset), page->bytes + inside, part);
        }
        at += part;
    }
    return (size_t)(end - offset);
}

void lossy_file_sync(struct lossy_file *file)
{
    LIST_FOR_EACH(&file->changes, link)
    {
        const struct change *change = CONTAINER_OF(link, struct change, link);
        if (change->is_resize) {
            image_resize(&file->stable, change->size);
        }
    }
    LIST_FOR_EACH(&file->changes, link)
    {
        const struct change *change = CONTAINER_OF(link, struct change, link);
        for (size_t i = 0; i < change_pages(change); i++) {
            size_t index = (size_t)page_of(change->begin) + i;
            image_set(&file->stable, index, page_ref(image_get(&file->cached, index)));
        }
    }
    file->stable.size = file->cached.size;
    forget_changes(file);
}

void lossy_file_drop_changes(struct lossy_file *file)
{
    if (file->change_count > 0) {
        forget_changes(file);
        image_copy(&file->cached, &file->stable);
    }
}

/* -- the power cut -- */

static enum fate draw_fate(struct lossy_cut *cut)
{
    uint64_t dice = prng_below(&cut->prng, 100);
    if (cut->keep_percent == 0 || cut->keep_percent == 100) {
        return cut->keep_percent == 0 ? FATE_LOST : FATE_KEPT;
    }
    if (dice >= cut->keep_percent) {
        return FATE_LOST;
    }
    /* Of those that reach the disk, every third does in part. */
    uint64_t how = prng_below(&cut->prng, 6);
    return how == 0 ? FATE_TORN_SECTORS : how == 1 ? FATE_TORN_PAGES : FATE_KEPT;
}

/* How many changes to the size are on disk: all before one of them. */
static size_t draw_sizes(struct lossy_cut *cut, size_t count)
{
    if (cut->keep_percent == 0 || cut->keep_percent == 100) {
        return cut->keep_percent == 0 ? 0 : count;
    }
    return prng_below(&cut->prng, 3) == 0 ? count
                                          : (size_t)prng_below(&cut->prng, (uint64_t)count + 1);
}

void lossy_file_cut(struct lossy_file *file, struct lossy_cut *cut)
{
    if (file->change_count == 0) {
        return;
    }
    size_t sizes = draw_sizes(cut, file->change_count), place = 0;
    uint64_t size = file->stable.size;
    LIST_FOR_EACH(&file->changes, link)
    {
        const struct change *change = CONTAINER_OF(link, struct change, link);
        bool has_size = place++ < sizes;
        size = has_size ? change->size : size;
        if (change->is_resize) {
            if (has_size) {
                image_resize(&file->stable, change->size);
            }
            cut->kept += has_size ? 1 : 0;
            cut->lost += has_size ? 0 : 1;
            continue;
        }
        enum fate fate = draw_fate(cut);
        if (fate != FATE_LOST) {
            keep_write(&file->stable, change, fate, &cut->prng);
        }
        cut->lost += fate == FATE_LOST ? 1 : 0;
        cut->kept += fate == FATE_KEPT ? 1 : 0;
        cut->torn += fate == FATE_TORN_PAGES || fate == FATE_TORN_SECTORS ? 1 : 0;
    }
    image_resize(&file->stable, size);
    forget_changes(file);
    image_copy(&file->cached, &file->stable);
}

bool lossy_file_flip(struct lossy_file *file, uint64_t offset, unsigned bit)
{
    struct lossy_image *images[] = {&file->cached, &file->stable};
    if (offset >= file->cached.size) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(images); i++) {
        if (offset < images[i]->size) {
            image_own(images[i], (size_t)page_of(offset))->bytes[offset % LOSSY_PAGE_SIZE] ^=
                (uint8_t)(1u << bit % 8);
        }
    }
    return true;
}
