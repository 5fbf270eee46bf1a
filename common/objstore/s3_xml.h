/*
 * s3_xml.h - the XML of S3's answers, read element by element within limits.
 *
 * It comes from a peer: size, depth and text are bounded, a DOCTYPE (and with it every entity) is
 * refused. Threads: [any].
 */
#pragma once

#include "common/base/bytes.h"

#define S3_XML_DEPTH_MAX 8
#define S3_XML_TEXT_MAX  4096
#define S3_XML_PATH_SIZE 256

/*
 * Called when an element ends, children first: "ListBucketResult/Contents/Key" and its text
 * (surrounding blanks kept; that of children is not part of it). An error ends the reading.
 */
typedef err_t (*s3_xml_visit_fn)(
    const char *path, const char *text, void *context, struct errmsg *msg);

/* ERR_CORRUPT for what is not XML, is cut, or is over a limit. */
NODISCARD err_t
s3_xml_read(struct bytes text, s3_xml_visit_fn visit, void *context, struct errmsg *msg);

/* For what we write: & < > " as entities. */
void s3_xml_append_text(struct buf *to, const char *text);
