/* Verifiers as Postgres stores them. */
#include "compute/agent/scram.h"

#include <string.h>

#include "tests/unit/unit.h"

/* RFC 7677 section 3: user "user", password "pencil". */
static const char rfc[] =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

START_TEST(test_verifier_of_the_rfc_matches_its_password_only)
{
    ck_assert(scram_matches(rfc, "pencil"));
    ck_assert(!scram_matches(rfc, "pencils"));
    ck_assert(!scram_matches(rfc, ""));
}
END_TEST

START_TEST(test_anything_else_does_not_match)
{
    static const char *const bad[] = {
        "",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$4096",
        "SCRAM-SHA-256$4096:",
        "SCRAM-SHA-256$0:W22ZaJ0SNY7soEsUEjb6gQ==$a:b",
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$a:b",
        "SCRAM-SHA-256$99999999999:W22ZaJ0SNY7soEsUEjb6gQ==$a:b",
        "SCRAM-SHA-256$4096:!!!!$a:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(!scram_matches(bad[i], "pencil"), "%s", bad[i]);
    }
    for (size_t cut = 0; cut < strlen(rfc); cut++) {
        char copy[sizeof(rfc)];
        memcpy(copy, rfc, cut);
        copy[cut] = '\0';
        ck_assert(!scram_matches(copy, "pencil"));
    }
    ck_assert(!scram_matches(rfc, "penc\xC3\xAFl")); /* not normalised here */
}
END_TEST

UNIT_MAIN(
    "scram", test_verifier_of_the_rfc_matches_its_password_only, test_anything_else_does_not_match);
