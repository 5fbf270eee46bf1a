/*
 * One client, one or two server connections, the messages between them as texts: "P:name,text" is a
 * message of that type; commas stand for NULs.
 */
#include "control/gateway/exchange.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/mem.h"
#include "tests/unit/unit.h"

#define TEXT_MAX 4096

static const struct exchange_limits limits = {
    .client_statements_max = 3,
    .client_statement_bytes_max = 1000,
    .server_statements_max = 2,
    .server_statement_bytes_max = 1000};

static struct statements statements;
static struct exchange_client client, other;
static struct exchange_server server, second;
static struct buf to_server, to_client;
static struct errmsg msg;

static void setup(void)
{
    exchange_server_init(&server, &statements, &limits);
    exchange_server_init(&second, &statements, &limits);
}

static void teardown(void)
{
    exchange_client_deinit(&client);
    exchange_client_deinit(&other);
    exchange_server_deinit(&server);
    exchange_server_deinit(&second);
    statements_deinit(&statements);
    buf_deinit(&to_server);
    buf_deinit(&to_client);
}

/* "T:body T:body", where a comma is a NUL and "~" a space. */
static void write_messages(const char *text, struct buf *to)
{
    while (*text != '\0') {
        struct buf body = {0};
        uint8_t type = (uint8_t)*text;
        text += text[1] == ':' ? 2 : 1;
        for (; *text != '\0' && *text != ' '; text++) {
            *buf_extend(&body, 1) = (uint8_t)(*text == ',' ? '\0' : *text == '~' ? ' ' : *text);
        }
        pg_put(to, type, buf_view(&body));
        buf_deinit(&body);
        text += strspn(text, " ");
    }
}

static const char *read_messages(struct buf *from)
{
    static char text[TEXT_MAX];
    size_t size = 0;
    struct pg_message message;
    struct bytes rest = buf_view(from);
    text[0] = '\0';
    while (pg_message_parse(rest, MIB, &message, &msg) == ERR_OK && message.size > 0) {
        ck_assert_uint_lt(size + message.size + 4, sizeof text);
        text[size] = ' ';
        size += size == 0 ? 0 : 1;
        text[size++] = (char)message.type;
        if (message.body.size > 0) {
            text[size++] = ':';
        }
        for (size_t i = 0; i < message.body.size; i++) {
            char c = (char)message.body.data[i];
            text[size++] = (char)(c == '\0' ? ',' : c == ' ' ? '~' : c);
        }
        text[size] = '\0';
        rest = bytes_of(rest.data + message.size, rest.size - message.size);
    }
    ck_assert_uint_eq(rest.size, 0);
    buf_clear(from);
    return text;
}

static enum exchange_verdict say_to(
    struct exchange_client *from, struct exchange_server *to, const char *text)
{
    struct buf bytes = {0};
    write_messages(text, &bytes);
    enum exchange_verdict verdict =
        exchange_from_client(from, to, buf_view(&bytes), &to_server, &to_client, &msg);
    buf_deinit(&bytes);
    return verdict;
}

/* What the client says is what the server gets. */
#define says(text, expected)                                                                       \
    do {                                                                                           \
        ck_assert_int_eq(say_to(&client, &server, text), EXCHANGE_ON);                             \
        ck_assert_str_eq(read_messages(&to_server), expected);                                     \
    } while (0)

static void answer(struct exchange_server *from, struct exchange_client *to, const char *text)
{
    struct buf bytes = {0};
    write_messages(text, &bytes);
    ck_assert_ok(
        exchange_from_server(from, to, buf_view(&bytes), to == NULL ? NULL : &to_client, &msg),
        &msg);
    buf_deinit(&bytes);
}

#define answers(text, expected)                                                                    \
    do {                                                                                           \
        answer(&server, &client, text);                                                            \
        ck_assert_str_eq(read_messages(&to_client), expected);                                     \
    } while (0)

static bool is_free(void)
{
    return exchange_is_free(&server, &client);
}

START_TEST(test_a_query_holds_the_connection_to_the_end_of_its_transaction)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    ck_assert(!is_free());
    says("Q:BEGIN,", "Q:BEGIN,");
    answers("C:BEGIN, Z:T", "C:BEGIN, Z:T");
    ck_assert(!is_free());
    says("Q:COMMIT, Q:SELECT,", "Q:COMMIT, Q:SELECT,"); /* one more than is answered */
    answers("C:COMMIT, Z:I", "C:COMMIT, Z:I");
    ck_assert(!is_free());
    answers("T:row D:1 C:SELECT, Z:I", "T:row D:1 C:SELECT, Z:I");
    ck_assert(is_free());
    teardown();
}
END_TEST

START_TEST(test_bytes_may_come_one_by_one)
{
    struct buf bytes = {0};
    setup();
    exchange_begin(&client, &server, &to_server);
    write_messages("P:s,SELECT~1,00 B:,s,000000 E:,0000 S", &bytes);
    for (size_t i = 0; i < bytes.size; i++) {
        ck_assert_int_eq(
            exchange_from_client(
                &client, &server, bytes_of(bytes.data + i, 1), &to_server, &to_client, &msg),
            EXCHANGE_ON);
    }
    ck_assert_str_eq(
        read_messages(&to_server),
        "P:anabranch~pooled~1,SELECT~1,00 B:,anabranch~pooled~1,000000 E:,0000 S");
    buf_clear(&bytes);
    write_messages("1 2 D:row C:SELECT~1, Z:I", &bytes);
    for (size_t i = 0; i < bytes.size; i++) {
        ck_assert_ok(
            exchange_from_server(&server, &client, bytes_of(bytes.data + i, 1), &to_client, &msg),
            &msg);
    }
    ck_assert_str_eq(read_messages(&to_client), "1 2 D:row C:SELECT~1, Z:I");
    ck_assert(is_free());
    buf_deinit(&bytes);
    teardown();
}
END_TEST

START_TEST(test_a_statement_is_prepared_again_where_it_is_not)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("P:s,SELECT,00 S", "P:anabranch~pooled~1,SELECT,00 S");
    answers("1 Z:I", "1 Z:I");
    exchange_begin(&client, &second, &to_server);
    ck_assert_int_eq(say_to(&client, &second, "B:,s,0 D:Ss, E:,0 S"), EXCHANGE_ON);
    ck_assert_str_eq(
        read_messages(&to_server),
        "P:anabranch~pooled~1,SELECT,00 B:,anabranch~pooled~1,0 D:Sanabranch~pooled~1, E:,0 S");
    answer(&second, &client, "1 2 t:x T:x C:SELECT, Z:I"); /* the first answer is ours alone */
    ck_assert_str_eq(read_messages(&to_client), "2 t:x T:x C:SELECT, Z:I");
    ck_assert(exchange_is_free(&second, &client));
    teardown();
}
END_TEST

START_TEST(test_what_another_client_prepared_is_not_prepared_twice)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("P:s,SELECT,00 S", "P:anabranch~pooled~1,SELECT,00 S");
    answers("1 Z:I", "1 Z:I");
    exchange_begin(&other, &server, &to_server);
    ck_assert_int_eq(say_to(&other, &server, "B:,,0 P:mine,SELECT,00 E:,0 S"), EXCHANGE_ON);
    ck_assert_str_eq(read_messages(&to_server), "B:,,0 E:,0 S");
    ck_assert_uint_eq(to_client.size, 0); /* in its place, not before */
    answer(&server, &other, "2 C:x, Z:I");
    ck_assert_str_eq(read_messages(&to_client), "2 1 C:x, Z:I");
    /* Closing is the client's own affair. */
    exchange_begin(&other, &server, &to_server);
    ck_assert_int_eq(say_to(&other, &server, "C:Smine, S"), EXCHANGE_ON);
    ck_assert_str_eq(read_messages(&to_server), "S");
    answer(&server, &other, "Z:I");
    ck_assert_str_eq(read_messages(&to_client), "3 Z:I");
    exchange_begin(&client, &server, &to_server);
    says("B:,s,0 S", "B:,anabranch~pooled~1,0 S");
    teardown();
}
END_TEST

START_TEST(test_settings_that_change_a_text_make_another_statement)
{
    setup();
    parameters_set(&client.parameters, PARAMETER_TimeZone, "UTC");
    parameters_set(&client.parameters, PARAMETER_application_name, "one");
    exchange_begin(&client, &server, &to_server);
    says("P:s,SELECT,0 S", "P:anabranch~pooled~1,SELECT,0 S");
    answers("1 Z:I", "1 Z:I");
    parameters_set(&other.parameters, PARAMETER_TimeZone, "Asia/Tokyo");
    exchange_begin(&other, &server, &to_server);
    ck_assert_int_eq(say_to(&other, &server, "P:s,SELECT,0 S"), EXCHANGE_ON);
    ck_assert_str_eq(read_messages(&to_server), "P:anabranch~pooled~2,SELECT,0 S");
    answer(&server, &other, "1 Z:I");
    buf_clear(&to_client);
    parameters_set(&other.parameters, PARAMETER_TimeZone, "UTC");
    parameters_set(&other.parameters, PARAMETER_application_name, "two"); /* means nothing */
    exchange_begin(&other, &server, &to_server);
    ck_assert_int_eq(say_to(&other, &server, "P:t,SELECT,0 B:,t,0 S"), EXCHANGE_ON);
    ck_assert_str_eq(read_messages(&to_server), "B:,anabranch~pooled~1,0 S");
    teardown();
}
END_TEST

START_TEST(test_after_an_error_nothing_counts_up_to_sync)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("B:,gone,0 P:s,SELECT,00 C:Sno, S", "B:,gone,0 P:anabranch~pooled~1,SELECT,00 C:Sno, S");
    answers("E:x Z:I", "E:x Z:I");
    ck_assert(is_free());
    exchange_begin(&client, &server, &to_server);
    says("B:,s,0 S", "B:,s,0 S"); /* there is no such statement: the server says so */
    answers("E:x Z:I", "E:x Z:I");
    /* The client goes on before it has seen the error. */
    exchange_begin(&client, &server, &to_server);
    says("B:,gone,0 H", "B:,gone,0 H");
    answers("E:x", "E:x");
    says("P:s,SELECT,00 B:,s,0 E:,0", "");
    ck_assert(!is_free());
    says("S", "S");
    answers("Z:I", "Z:I");
    ck_assert(is_free());
    teardown();
}
END_TEST

START_TEST(test_what_hangs_on_an_earlier_batch_waits_for_its_answer)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("B:,gone,0 P:s,SELECT,00 S P:s,OTHER,00 S", "B:,gone,0 P:anabranch~pooled~1,SELECT,00 S");
    ck_assert(client.is_stalled);
    answers("E:x Z:I", "E:x Z:I");
    ck_assert(!is_free() || client.held.size > 0);
    says("", "P:anabranch~pooled~2,OTHER,00 S"); /* the first one never came to be */
    ck_assert(!client.is_stalled);
    answers("1 Z:I", "1 Z:I");
    says("P:s,SELECT,00 S", "D:Sanabranch~refuses, S"); /* now it is a mistake */
    answers("E:x Z:I", "E:SERROR,VERROR,C42P05,Mprepared~statement~\"s\"~already~exists,, Z:I");
    teardown();
}
END_TEST

START_TEST(test_the_least_recently_used_statement_makes_place)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("P:a,A,0 P:b,B,0 S", "P:anabranch~pooled~1,A,0 P:anabranch~pooled~2,B,0 S");
    answers("1 1 Z:I", "1 1 Z:I");
    says(
        "B:,a,0 P:c,C,0 S",
        "B:,anabranch~pooled~1,0 C:Sanabranch~pooled~2, P:anabranch~pooled~3,C,0 S");
    answers("2 3 1 Z:I", "2 1 Z:I");
    ck_assert_uint_eq(server.prepared.count, 2);
    says("P:d,D,0 S", "D:Sanabranch~refuses, S"); /* the client's own limit */
    answers(
        "E:x Z:I",
        "E:SERROR,VERROR,C54000,Mtoo~many~prepared~statements~of~one~client~of~a~pool,, Z:I");
    says("B:,b,0 S", "C:Sanabranch~pooled~1, P:anabranch~pooled~2,B,0 B:,anabranch~pooled~2,0 S");
    answers("E:x Z:I", "E:x Z:I"); /* it did not close it */
    says("B:,a,0 S", "B:,anabranch~pooled~1,0 S");
    answers("2 Z:I", "2 Z:I");
    teardown();
}
END_TEST

/* [Close s] [Parse s TEXT] Sync: the client keeps one of them, and the server? */
static void prepare_anew(char fill, size_t size)
{
    struct buf bytes = {0};
    write_messages("C:Ss,", &bytes);
    char *body = mem_zalloc(size + 6); /* name, text, the count of types */
    body[0] = 's';
    memset(body + 2, fill, size);
    pg_put(&bytes, PG_PARSE, bytes_of(body, size + 5));
    pg_put(&bytes, PG_SYNC, bytes_of(NULL, 0));
    ck_assert_int_eq(
        exchange_from_client(&client, &server, buf_view(&bytes), &to_server, &to_client, &msg),
        EXCHANGE_ON);
    mem_free(body);
    buf_deinit(&bytes);
}

START_TEST(test_the_bytes_that_a_server_keeps_are_limited)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    for (char fill = 'a'; fill < 'k'; fill++) {
        prepare_anew(fill, 600); /* two are too much */
        answers("3 1 Z:I", "3 1 Z:I");
        buf_clear(&to_server);
        ck_assert_uint_eq(server.prepared.count, 1);
        ck_assert_uint_le(server.prepared.bytes, limits.server_statement_bytes_max);
        ck_assert_uint_eq(statements.count, 1);
    }
    teardown();
}
END_TEST

START_TEST(test_what_is_not_known_to_be_prepared_makes_no_place)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    /* The server would keep its answers back until a Sync that the client has yet to send. */
    says("P:a,A,0 P:b,B,0 P:c,C,0 S", "P:anabranch~pooled~1,A,0 P:anabranch~pooled~2,B,0 H");
    ck_assert(client.is_stalled);
    says("", ""); /* it was told */
    answers("1 1", "1 1");
    says("", "C:Sanabranch~pooled~1, P:anabranch~pooled~5,C,0 S");
    ck_assert(!client.is_stalled);
    answers("3 1 Z:I", "1 Z:I");
    ck_assert_uint_eq(server.prepared.count, 2);
    teardown();
}
END_TEST

START_TEST(test_names_are_counted_and_limited)
{
    struct buf bytes = {0};
    char body[2200] = {0};
    setup();
    exchange_begin(&client, &server, &to_server);
    memset(body, 'n', 990);
    memcpy(body + 991, "0123456", 8);
    pg_put(&bytes, PG_PARSE, bytes_of(body, 1001)); /* 990 of the name and 10 behind its NUL */
    pg_put(&bytes, PG_PARSE, bytes_of("m\0T\0\0", 6));
    pg_put(&bytes, PG_SYNC, bytes_of(NULL, 0));
    ck_assert_int_eq(
        exchange_from_client(&client, &server, buf_view(&bytes), &to_server, &to_client, &msg),
        EXCHANGE_ON);
    ck_assert_uint_eq(client.bindings.count, 1); /* the other one is refused */
    ck_assert_uint_eq(client.bindings.bytes, 1000);
    answers(
        "1 E:x Z:I",
        "1 E:SERROR,VERROR,C54000,Mtoo~many~prepared~statements~of~one~client~of~a~pool,, Z:I");
    for (size_t i = 0; i < 2; i++) { /* Parse and Bind, too long and all here */
        memset(body, 'n', 2100);
        buf_clear(&bytes);
        pg_put(&bytes, i == 0 ? PG_PARSE : PG_BIND, bytes_of(body, sizeof body));
        ck_assert_int_eq(
            exchange_from_client(&client, &server, buf_view(&bytes), &to_server, &to_client, &msg),
            EXCHANGE_BROKEN);
        buf_deinit(&client.held);
    }
    buf_deinit(&bytes);
    teardown();
}
END_TEST

START_TEST(test_a_crowd_of_requests_waits_for_answers)
{
    struct buf bytes = {0};
    setup();
    exchange_begin(&client, &server, &to_server);
    for (size_t i = 0; i < 10000; i++) {
        write_messages("E:,0", &bytes);
    }
    ck_assert_int_eq(
        exchange_from_client(&client, &server, buf_view(&bytes), &to_server, &to_client, &msg),
        EXCHANGE_ON);
    ck_assert(client.is_stalled);
    ck_assert_uint_lt(server.queue_count, 9000);
    ck_assert_uint_gt(client.held.size, 0);
    ck_assert_uint_eq(to_server.data[to_server.size - PG_HEADER_SIZE], PG_FLUSH);
    buf_clear(&to_server);
    for (size_t i = 0; client.is_stalled; i++) {
        ck_assert_uint_lt(i, 10000);
        answer(&server, &client, "C:x,");
        (void)say_to(&client, &server, "");
    }
    ck_assert_uint_eq(client.held.size, 0);
    ck_assert_uint_le(server.queue_count, 8192);
    /* What needs no word of the server is answered, and waits for none. */
    while (server.queue_count > 0) {
        answer(&server, &client, "C:x,");
    }
    buf_clear(&to_server);
    says("P:s,A,0 S", "P:anabranch~pooled~1,A,0 S"); /* behind the last of 10,000 */
    buf_clear(&to_client);
    answers("1 Z:I", "1 Z:I");
    buf_clear(&bytes);
    for (size_t i = 0; i < 10000; i++) {
        write_messages("C:Ss, P:s,A,0", &bytes);
    }
    ck_assert_int_eq(
        exchange_from_client(&client, &server, buf_view(&bytes), &to_server, &to_client, &msg),
        EXCHANGE_ON);
    ck_assert(!client.is_stalled);
    ck_assert_uint_eq(to_client.size, 20000 * PG_HEADER_SIZE);
    buf_deinit(&bytes);
    teardown();
}
END_TEST

START_TEST(test_sql_that_drops_all_statements_is_noticed)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("P:s,SELECT,0 S Q:DISCARD~ALL,", "P:anabranch~pooled~1,SELECT,0 S Q:DISCARD~ALL,");
    answers("1 Z:I C:DISCARD~ALL, Z:I", "1 Z:I C:DISCARD~ALL, Z:I");
    ck_assert_uint_eq(server.prepared.count, 0);
    ck_assert_uint_eq(client.bindings.count, 0);
    teardown();
}
END_TEST

START_TEST(test_what_is_prepared_behind_such_sql_stays)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("P:s,A,0 P:u,B,0 S", "P:anabranch~pooled~1,A,0 P:anabranch~pooled~2,B,0 S");
    answers("1 1 Z:I", "1 1 Z:I");
    says(
        "Q:DISCARD~ALL, C:Ss, P:s,C,0 B:,s,0 S",
        "Q:DISCARD~ALL, C:Sanabranch~pooled~1, P:anabranch~pooled~3,C,0 "
        "B:,anabranch~pooled~3,0 S");
    answers("C:DISCARD~ALL, Z:I", "C:DISCARD~ALL, Z:I 3");
    answers("3 1 2 Z:I", "1 2 Z:I");
    ck_assert_uint_eq(server.prepared.count, 1);
    ck_assert_uint_eq(client.bindings.count, 1); /* u is gone */
    says("B:,s,0 S", "B:,anabranch~pooled~3,0 S");
    answers("2 Z:I", "2 Z:I");
    /* What fails behind it is not there, nor back: what a Close would restore was dropped. */
    says(
        "Q:DISCARD~ALL, B:,gone,0 C:Ss, P:v,D,0 S",
        "Q:DISCARD~ALL, B:,gone,0 P:anabranch~pooled~4,D,0 S");
    answers("C:DISCARD~ALL, Z:I E:x Z:I", "C:DISCARD~ALL, Z:I E:x Z:I");
    ck_assert_uint_eq(server.prepared.count, 0);
    ck_assert_uint_eq(client.bindings.count, 0);
    ck_assert(is_free());
    /* A text that was taken for prepared is not: it is prepared again, not used as if it were. */
    exchange_begin(&client, &server, &to_server);
    says("P:s,A,0 S", "P:anabranch~pooled~5,A,0 S");
    answers("1 Z:I", "1 Z:I");
    says("Q:DISCARD~ALL, P:t,A,0 S", "Q:DISCARD~ALL, S");
    answers("C:DISCARD~ALL, Z:I Z:I", "C:DISCARD~ALL, Z:I 1 Z:I");
    says("B:,t,0 S", "P:anabranch~pooled~5,A,0 B:,anabranch~pooled~5,0 S");
    answers("1 2 Z:I", "2 Z:I");
    teardown();
}
END_TEST

START_TEST(test_copy_ignores_syncs_in_its_middle)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("P:,COPY,0 B:,,0 E:,0 S", "P:,COPY,0 B:,,0 E:,0 S");
    answers("1 2 G:x", "1 2 G:x");
    says("d:line S c S", "d:line S c S");
    answers("C:COPY~1, Z:I", "C:COPY~1, Z:I"); /* one of three */
    ck_assert(is_free());
    ck_assert(!server.is_spent);
    exchange_begin(&client, &server, &to_server);
    says("P:,COPY,0 B:,,0 E:,0 S", "P:,COPY,0 B:,,0 E:,0 S");
    answers("1 2 G:x E:bad", "1 2 G:x E:bad");
    says("d:line c S", "S");
    answers("Z:I", "Z:I");
    ck_assert(is_free());
    ck_assert(server.is_spent); /* whether there is another answer cannot be told */
    teardown();
}
END_TEST

START_TEST(test_a_copy_of_a_simple_query)
{
    setup();
    exchange_begin(&client, &server, &to_server);
    says("Q:COPY,", "Q:COPY,");
    answers("G:x", "G:x");
    says("d:line c Q:SELECT,", "d:line c Q:SELECT,");
    answers("C:COPY~1, Z:I", "C:COPY~1, Z:I");
    ck_assert(!is_free());
    answers("C:SELECT~1, Z:I", "C:SELECT~1, Z:I");
    ck_assert(is_free());
    /* What comes late for one that has failed goes nowhere, with or without a connection. */
    ck_assert_int_eq(say_to(&client, NULL, "d:line c"), EXCHANGE_ON);
    ck_assert_uint_eq(client.held.size, 0);
    teardown();
}
END_TEST

START_TEST(test_settings_follow_the_client)
{
    setup();
    answer(&server, NULL, "S:TimeZone,UTC, S:application_name,, S:server_version,17,");
    parameters_set(&client.parameters, PARAMETER_TimeZone, "europe/'x\\");
    parameters_set(&client.parameters, PARAMETER_search_path, "a, b"); /* not reported here */
    exchange_begin(&client, &server, &to_server);
    ck_assert(exchange_is_beginning(&server));
    ck_assert_str_eq(read_messages(&to_server), "Q:SET~TimeZone~TO~E'europe/''x\\\\';,");
    says("Q:SELECT,", "Q:SELECT,");
    answers(
        "S:TimeZone,Europe/X, C:SET, Z:I", "S:TimeZone,Europe/X,"); /* as the server spells it */
    ck_assert(!exchange_is_beginning(&server) && !is_free());
    answers("N:notice C:SELECT, Z:I", "N:notice C:SELECT, Z:I");
    ck_assert(is_free());
    exchange_begin(&client, &server, &to_server);
    ck_assert_uint_eq(to_server.size, 0); /* they agree */
    answers("S:TimeZone,UTC,", "S:TimeZone,UTC,");
    ck_assert_str_eq(client.parameters.values[PARAMETER_TimeZone], "UTC");
    teardown();
}
END_TEST

START_TEST(test_settings_that_are_refused_end_it)
{
    struct buf bytes = {0};
    setup();
    answer(&server, NULL, "S:TimeZone,UTC,");
    parameters_set(&client.parameters, PARAMETER_TimeZone, "nowhere");
    exchange_begin(&client, &server, &to_server);
    write_messages("E:C22023,Mno~such~zone,, Z:I", &bytes);
    ck_assert_int_eq(
        exchange_from_server(&server, &client, buf_view(&bytes), &to_client, &msg), ERR_FAILED);
    ck_assert_str_eq(server.failure_code, "22023");
    ck_assert_str_eq(server.failure, "no such zone");
    ck_assert_uint_eq(to_client.size, 0);
    buf_deinit(&bytes);
    teardown();
}
END_TEST

START_TEST(test_without_a_connection_only_whole_messages_ask_for_one)
{
    struct buf bytes = {0};
    setup();
    ck_assert_int_eq(say_to(&client, NULL, "H"), EXCHANGE_ON); /* nothing to be flushed */
    write_messages("Q:SELECT,", &bytes);
    ck_assert_int_eq(
        exchange_from_client(
            &client, NULL, bytes_of(bytes.data, bytes.size - 1), NULL, &to_client, &msg),
        EXCHANGE_ON);
    ck_assert_int_eq(
        exchange_from_client(
            &client, NULL, bytes_of(bytes.data + bytes.size - 1, 1), NULL, &to_client, &msg),
        EXCHANGE_WANTS_SERVER);
    exchange_begin(&client, &server, &to_server);
    says("", "Q:SELECT,");
    answers("Z:I", "Z:I");
    ck_assert_int_eq(say_to(&client, NULL, "X"), EXCHANGE_ENDS);
    buf_deinit(&bytes);
    teardown();
}
END_TEST

START_TEST(test_what_is_no_protocol_is_refused)
{
    static const uint8_t too_small[] = {'Q', 0, 0, 0, 3};
    static const uint8_t too_large[] = {'E', 0, 1, 0, 0};
    static const uint8_t unknown[] = {'!', 0, 0, 0, 4};
    const struct bytes bad[] = {
        bytes_of(too_small, 5), bytes_of(too_large, 5), bytes_of(unknown, 5)};
    setup();
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        buf_clear(&client.held);
        ck_assert_int_eq(
            exchange_from_client(&client, &server, bad[i], &to_server, &to_client, &msg),
            EXCHANGE_BROKEN);
    }
    buf_clear(&client.held);
    ck_assert_int_eq(
        exchange_from_server(&server, &client, bytes_of("Z\0\0\0\5I", 6), &to_client, &msg),
        ERR_CORRUPT); /* an answer to nothing */
    teardown();
}
END_TEST

START_TEST(test_large_messages_pass_in_pieces)
{
    struct buf bytes = {0};
    char *text = mem_zalloc(2 * MIB);
    setup();
    exchange_begin(&client, &server, &to_server);
    memset(text, 'x', 2 * MIB - 1);
    pg_put(&bytes, PG_QUERY, bytes_of(text, 2 * MIB));
    for (size_t at = 0; at < bytes.size; at += 1000) {
        struct bytes piece = bytes_of(bytes.data + at, MIN_OF(1000, bytes.size - at));
        ck_assert_int_eq(
            exchange_from_client(&client, &server, piece, &to_server, &to_client, &msg),
            EXCHANGE_ON);
        ck_assert_uint_eq(to_server.size, at + piece.size); /* nothing is gathered */
    }
    ck_assert(bytes_equal(buf_view(&to_server), buf_view(&bytes)));
    buf_clear(&to_server);
    /* One that would be prepared under a name is too long for that, and its rest goes nowhere. */
    buf_clear(&bytes);
    pg_put(&bytes, PG_PARSE, bytes_of("s\0", 2));
    bytes.data[2] = 0x20;
    ck_assert_int_eq(
        exchange_from_client(&client, &server, buf_view(&bytes), &to_server, &to_client, &msg),
        EXCHANGE_ON);
    ck_assert_str_eq(read_messages(&to_server), "D:Sanabranch~refuses,");
    ck_assert_uint_eq(client.pass_left, 0x200006 + 1 - bytes.size);
    buf_deinit(&bytes);
    mem_free(text);
    teardown();
}
END_TEST

UNIT_MAIN(
    "gateway_exchange",
    test_a_query_holds_the_connection_to_the_end_of_its_transaction,
    test_bytes_may_come_one_by_one,
    test_a_statement_is_prepared_again_where_it_is_not,
    test_what_another_client_prepared_is_not_prepared_twice,
    test_settings_that_change_a_text_make_another_statement,
    test_after_an_error_nothing_counts_up_to_sync,
    test_what_hangs_on_an_earlier_batch_waits_for_its_answer,
    test_the_least_recently_used_statement_makes_place,
    test_the_bytes_that_a_server_keeps_are_limited,
    test_what_is_not_known_to_be_prepared_makes_no_place,
    test_names_are_counted_and_limited,
    test_a_crowd_of_requests_waits_for_answers,
    test_sql_that_drops_all_statements_is_noticed,
    test_what_is_prepared_behind_such_sql_stays,
    test_copy_ignores_syncs_in_its_middle,
    test_a_copy_of_a_simple_query,
    test_settings_follow_the_client,
    test_settings_that_are_refused_end_it,
    test_without_a_connection_only_whole_messages_ask_for_one,
    test_what_is_no_protocol_is_refused,
    test_large_messages_pass_in_pieces);
