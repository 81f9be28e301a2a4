"""OWASP Application Security Verification Standard 5.0: its rows of levels 1 and 2, and what becomes of each here.

The chapters that this service is about are here whole: encoding (V1), validation (V2), what browsers are told (V3),
HTTP (V4), files (V5), authentication (V6), sessions (V7), authorization (V8), tokens (V9), cryptography (V11), TLS
(V12), logs and errors (V16); of level 3, and of the others, what is held anyway. Each row is one of three:

    held(…)       a test proves it; `test_asvs.py` checks that each test is there
    outside(…)    it is about what we don't have, or not about a program: why
    open_(…)      it is not held, on purpose: why, and what stands in its place

What a row asks is told in our words; the standard's own text is at owasp.org (CC BY-SA 4.0).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Standing = Literal["held", "outside", "open"]


class Row(NamedTuple):
    """A requirement, and what becomes of it."""

    id: str
    level: int
    asks: str
    standing: Standing
    tests: tuple[str, ...] = ()
    """`tests/<file>::<function>`, without the folder `tests/` and the suffix `.py`."""
    why: str = ""


def held(identifier: str, level: int, asks: str, *tests: str, why: str = "") -> Row:
    """Proven by tests."""
    return Row(identifier, level, asks, "held", tests, why)


def outside(identifier: str, level: int, asks: str, why: str) -> Row:
    """Does not apply, or is a matter of papers: `why` says which, and where they are."""
    return Row(identifier, level, asks, "outside", (), why)


def open_(identifier: str, level: int, asks: str, why: str) -> Row:
    """Not held, on purpose."""
    return Row(identifier, level, asks, "open", (), why)


LEVELS = {
    "V1": {
        1: "1.2.1 1.2.2 1.2.3 1.2.4 1.2.5 1.3.1 1.3.2 1.5.1",
        2: "1.1.1 1.1.2 1.2.6 1.2.7 1.2.8 1.2.9 1.3.3 1.3.4 1.3.5 1.3.6 1.3.7 1.3.8 1.3.9 1.3.10 1.3.11 1.4.1 1.4.2 "
        "1.4.3 1.5.2",
    },
    "V2": {1: "2.1.1 2.2.1 2.2.2 2.3.1", 2: "2.1.2 2.1.3 2.2.3 2.3.2 2.3.3 2.3.4 2.4.1"},
    "V3": {
        1: "3.2.1 3.2.2 3.3.1 3.4.1 3.4.2 3.5.1 3.5.2 3.5.3",
        2: "3.3.2 3.3.3 3.3.4 3.4.3 3.4.4 3.4.5 3.4.6 3.5.4 3.5.5 3.7.1 3.7.2",
    },
    "V4": {1: "4.1.1 4.4.1", 2: "4.1.2 4.1.3 4.2.1 4.3.1 4.3.2 4.4.2 4.4.3 4.4.4"},
    "V5": {1: "5.2.1 5.2.2 5.3.1 5.3.2", 2: "5.1.1 5.2.3 5.4.1 5.4.2 5.4.3"},
    "V6": {
        1: "6.1.1 6.2.1 6.2.2 6.2.3 6.2.4 6.2.5 6.2.6 6.2.7 6.2.8 6.3.1 6.3.2 6.4.1 6.4.2",
        2: "6.1.2 6.1.3 6.2.9 6.2.10 6.2.11 6.2.12 6.3.3 6.3.4 6.4.3 6.4.4 6.5.1 6.5.2 6.5.3 6.5.4 6.5.5 6.6.1 6.6.2 "
        "6.6.3 6.8.1 6.8.2 6.8.3 6.8.4",
    },
    "V7": {
        1: "7.2.1 7.2.2 7.2.3 7.2.4 7.4.1 7.4.2",
        2: "7.1.1 7.1.2 7.1.3 7.3.1 7.3.2 7.4.3 7.4.4 7.4.5 7.5.1 7.5.2 7.6.1 7.6.2",
    },
    "V8": {1: "8.1.1 8.2.1 8.2.2 8.3.1", 2: "8.1.2 8.2.3 8.4.1"},
    "V9": {1: "9.1.1 9.1.2 9.1.3 9.2.1", 2: "9.2.2 9.2.3 9.2.4"},
    "V11": {
        1: "11.3.1 11.3.2 11.4.1",
        2: "11.1.1 11.1.2 11.2.1 11.2.2 11.2.3 11.3.3 11.4.2 11.4.3 11.4.4 11.5.1 11.6.1",
    },
    "V12": {1: "12.1.1 12.2.1 12.2.2", 2: "12.1.2 12.1.3 12.3.1 12.3.2 12.3.3 12.3.4"},
    "V16": {
        1: "",
        2: "16.1.1 16.2.1 16.2.2 16.2.3 16.2.4 16.2.5 16.3.1 16.3.2 16.3.3 16.3.4 16.4.1 16.4.2 16.4.3 16.5.1 16.5.2 "
        "16.5.3",
    },
}
"""Every requirement of these levels in the chapters that are here whole, as the standard numbers them."""

NO_HTML = "clients send text, which is kept and given back as text; no HTML is taken"
NO_COOKIES = "there are no cookies: tokens travel in a header"
NO_PROVIDER = "there are no identity providers: people sign in here"
NO_SOCKETS = "there are no WebSockets yet; they come with the notifications"
BROWSER = "this is the API; the console, a program in the browser, comes later"

ENCODING = (
    held(
        "1.1.1",
        2,
        "Input is decoded once, before it is looked at",
        "web/test_http::test_bodies_that_are_no_json_object",
        "web/test_bad_input::test_any_text_comes_back_as_it_was",
        "web/test_http::test_of_equal_keys_the_last_wins_and_errors_are_named",
    ),
    held(
        "1.1.2",
        2,
        "Output is escaped last, by what writes it",
        "mail/test_templates::test_any_title",
        "web/test_pages::test_done",
        "mail/test_message::test_no_text_begins_a_header",
    ),
    held(
        "1.2.1",
        1,
        "HTML, headers and mail are escaped as their context needs",
        "mail/test_templates::test_any_title",
        "mail/test_message::test_display_name",
        "mail/test_message::test_no_text_begins_a_header",
    ),
    held(
        "1.2.2",
        1,
        "Addresses are built from encoded parts, and only with safe schemes",
        "rules/test_private_addresses::test_where_no_redirect_leads",
        "http_requests/test_client::test_what_is_no_url",
    ),
    held(
        "1.2.3",
        1,
        "JSON is written by a serializer",
        "web/test_bad_input::test_any_text_comes_back_as_it_was",
        "rules/test_http_answers::test_any_bytes_are_text_that_json_and_databases_take",
    ),
    held(
        "1.2.4",
        1,
        "Queries carry their values as parameters",
        "web/test_bad_input::test_any_text_comes_back_as_it_was",
        "web/test_bad_input::test_strange_logins_are_only_wrong",
        "services/test_users::test_names_are_found_by_any_part_without_regard_to_case_accents_and_width",
        why="`make audit` (bandit B608) refuses SQL that is put together from text",
    ),
    held(
        "1.2.5",
        1,
        "No command of the operating system is made of input",
        "security/test_source::test_no_shell_and_nothing_that_is_evaluated",
        why="only our own programs are started, with lists of arguments",
    ),
    outside("1.2.6", 2, "LDAP injection", "there is no LDAP"),
    outside("1.2.7", 2, "XPath injection", "there is no XPath"),
    outside("1.2.8", 2, "LaTeX injection", "there is no LaTeX"),
    held(
        "1.2.9",
        2,
        "What is matched against a pattern is no pattern itself",
        "services/test_users::test_names_are_found_by_any_part_without_regard_to_case_accents_and_width",
        "services/test_log_lists::test_text_is_found_as_it_is_in_any_case",
    ),
    outside("1.3.1", 1, "HTML of editors is sanitized", NO_HTML),
    held(
        "1.3.2",
        1,
        "Nothing is evaluated as a program",
        "security/test_source::test_no_shell_and_nothing_that_is_evaluated",
    ),
    held(
        "1.3.3",
        2,
        "What goes into a dangerous place has only what is safe there, and fits",
        "web/test_bad_input::test_bad_tasks_are_refused_whole",
        "rules/test_addresses::test_any_text_is_an_address_that_fits_its_column_or_a_value_error",
        "rules/test_http_answers::test_headers_that_may_not",
    ),
    held("1.3.4", 2, "No scripts in SVG of users", "rules/test_pictures::test_other_kinds_of_files_are_not_taken"),
    outside(
        "1.3.5", 2, "Markdown and templates of users are made harmless", "Markdown is kept as text and shown by clients"
    ),
    held(
        "1.3.6",
        2,
        "Requests made for people reach nothing private",
        "http_requests/test_client::test_a_private_address_is_not_connected_to",
        "http_requests/test_client::test_a_redirect_to_what_is_private",
        "http_requests/test_client::test_the_socket_itself_is_held_to_what_was_checked",
        "rules/test_private_addresses::test_what_is_not_listed_may_not",
    ),
    held("1.3.7", 2, "No template is made of input", "mail/test_templates::test_any_title"),
    outside("1.3.8", 2, "JNDI", "this is Python"),
    outside("1.3.9", 2, "memcache", "there is no memcache; keys in Redis are made of digests and ids"),
    held(
        "1.3.10",
        2,
        "Format strings are ours",
        "web/test_bad_input::test_any_text_comes_back_as_it_was",
        why="titles like `%s {0} ${x}` come back as they were",
    ),
    held(
        "1.3.11",
        2,
        "No input becomes a command of SMTP, or a header",
        "mail/test_smtp_stages::test_no_address_reaches_the_wire_unless_it_is_one",
        "mail/test_smtp_stages::test_no_content_ends_itself",
        "mail/test_message::test_no_text_begins_a_header",
    ),
    outside("1.4.1", 2, "Memory-safe strings", "Python has them"),
    held(
        "1.4.2",
        2,
        "Numbers stay in their range",
        "rules/test_paging::test_any_json_is_read_or_is_a_bad_cursor",
        "rules/test_clock::test_whatever_has_the_form_is_in_range_or_is_a_value_error",
        "web/test_conventions::test_lists_come_in_pages",
    ),
    held(
        "1.4.3",
        2,
        "What is taken is given back",
        "http_requests/test_client::test_nothing_is_left_open",
        "services/test_storage::test_a_source_that_fails_leaves_nothing",
    ),
    outside("1.5.1", 1, "XML entities", "no XML is read"),
    held(
        "1.5.2",
        2,
        "Only data is deserialized, into declared shapes",
        "security/test_source::test_no_shell_and_nothing_that_is_evaluated",
        "web/test_conventions::test_what_is_not_taken_is_refused_everywhere",
    ),
)

VALIDATION = (
    held(
        "2.1.1",
        1,
        "Rules for input are written down",
        "web/test_openapi::test_the_document_is_valid",
        "web/test_openapi::test_each_operation_is_told_in_full",
        why="the OpenAPI document is made from the definitions that check",
    ),
    held(
        "2.1.2",
        2,
        "Rules for what goes together are written down",
        "web/test_openapi::test_each_operation_is_told_in_full",
    ),
    outside("2.1.3", 2, "Limits are written down", "README.md (settings) and the descriptions in the OpenAPI document"),
    held(
        "2.2.1",
        1,
        "Input is held against what is expected",
        "web/test_bad_input::test_bad_tasks_are_refused_whole",
        "web/test_bad_input::test_bad_signups",
        "web/test_schedules::test_bad_schedules_are_refused_whole",
        "web/test_conventions::test_what_is_not_taken_is_refused_everywhere",
    ),
    held(
        "2.2.2",
        1,
        "It is checked by the service",
        "web/test_conventions::test_what_is_not_taken_is_refused_everywhere",
        "services/test_user_administration::test_with_a_password_the_address_is_to_be_verified",
    ),
    held(
        "2.2.3",
        2,
        "What is sent together must go together",
        "web/test_bad_input::test_bad_tasks_are_refused_whole",
        "web/test_task_people::test_what_is_wrong_is_pointed_at",
    ),
    held(
        "2.3.1",
        1,
        "Steps are taken in their order",
        "services/test_two_factor::test_out_of_turn",
        "services/test_phone::test_codes_that_do_not_work",
        "services/test_password_reset::test_links_that_do_not_work",
    ),
    held(
        "2.3.2",
        2,
        "Limits are enforced",
        "web/test_api_tokens::test_there_are_so_many_and_no_more",
        "services/test_tasks::test_there_is_a_most_of_assignees",
        "services/test_schedules::test_a_person_has_so_many_at_the_most",
    ),
    held(
        "2.3.3",
        2,
        "All of a change, or none of it",
        "web/test_idempotency::test_a_refusal_undoes_its_work_and_is_kept",
        "services/test_idempotency::test_the_answer_is_there_with_its_effect_or_not_at_all",
        "web/test_bad_input::test_bad_tasks_are_refused_whole",
    ),
    held(
        "2.3.4",
        2,
        "What there is one of is given once",
        "services/test_sign_up::test_of_many_at_once_one_gets_the_address",
        "services/test_password_reset::test_of_fifty_uses_at_once_exactly_one_wins",
        "services/test_two_factor::test_of_uses_at_once_exactly_one_wins",
        "web/test_idempotency::test_twenty_at_once_do_it_once",
    ),
    held(
        "2.4.1",
        2,
        "Nobody may ask without end",
        "web/test_rate_limits::test_a_persons_requests_are_counted_together_in_all_processes",
        "web/test_rate_limits::test_all_password_routes_share_one_bucket_of_an_address",
        "services/test_rate_limits::test_of_any_number_at_once_in_any_number_of_processes_just_the_count_is_let_in",
        "services/test_phone::test_five_an_hour",
        "services/test_password_reset::test_ten_an_hour",
    ),
)

BROWSERS = (
    held(
        "3.2.1",
        1,
        "Data that a browser is made to show runs nothing",
        "web/test_http::test_the_headers_that_are_always_there",
        "web/test_conventions::test_who_may_not_is_told_the_same_everywhere",
        why="each answer has a Content-Security-Policy that allows nothing; files are given as what their bytes are",
    ),
    outside("3.2.2", 1, "Text is shown as text", BROWSER),
    outside("3.3.1", 1, "Secure cookies", NO_COOKIES),
    outside("3.3.2", 2, "SameSite", NO_COOKIES),
    outside("3.3.3", 2, "__Host-", NO_COOKIES),
    outside("3.3.4", 2, "HttpOnly", NO_COOKIES),
    held(
        "3.4.1",
        1,
        "HSTS for a year",
        "web/test_tls::test_answers_over_tls_say_so",
        "web/test_http::test_trusted_proxies_say_who_calls",
        why="not for subdomains, which level 2 asks for: the names below it are the operator's, not ours to decide on",
    ),
    held("3.4.2", 1, "CORS by an explicit list", "web/test_http::test_cors_for_the_listed_origins_only"),
    held(
        "3.4.3",
        2,
        "A Content-Security-Policy everywhere",
        "web/test_http::test_the_headers_that_are_always_there",
        "web/test_openapi::test_swagger_ui_is_served_by_us",
    ),
    held("3.4.4", 2, "nosniff everywhere", "web/test_conventions::test_who_may_not_is_told_the_same_everywhere"),
    held(
        "3.4.5", 2, "A Referrer-Policy everywhere", "web/test_conventions::test_who_may_not_is_told_the_same_everywhere"
    ),
    held("3.4.6", 2, "frame-ancestors everywhere", "web/test_http::test_the_headers_that_are_always_there"),
    held(
        "3.5.1",
        1,
        "No page elsewhere acts for somebody",
        "web/test_http::test_credentials_that_are_none",
        "web/test_conventions::test_who_may_not_is_told_the_same_everywhere",
        why="credentials travel in a header that no form and no link sends",
    ),
    held(
        "3.5.2",
        1,
        "Nothing that matters goes without a preflight",
        "web/test_conventions::test_what_is_not_taken_is_refused_everywhere",
        "web/test_http::test_cors_for_the_listed_origins_only",
    ),
    held(
        "3.5.3",
        1,
        "GET changes nothing",
        "web/test_pages::test_done",
        "web/test_passwords::test_the_page_behind_the_link",
    ),
    outside("3.5.4", 2, "Applications have hosts of their own", "the operator gives it one"),
    outside("3.5.5", 2, "postMessage", BROWSER),
    outside("3.7.1", 2, "Technologies that are still supported", BROWSER),
    outside("3.7.2", 2, "Redirects to listed places", "nothing redirects"),
)

HTTP = (
    held(
        "4.1.1",
        1,
        "A Content-Type that is true",
        "web/test_http::test_bodies_that_are_no_json_object",
        "web/test_avatar::test_a_picture_is_set_shown_replaced_and_removed",
        why="application/json has no charset: it is UTF-8 (RFC 8259, 11)",
    ),
    held(
        "4.1.2",
        2,
        "The API redirects nobody to HTTPS",
        "web/test_tls::test_what_is_offered",
    ),
    held(
        "4.1.3",
        2,
        "Headers of proxies count from proxies only",
        "web/test_rate_limits::test_forwarded_addresses_count_only_behind_a_trusted_proxy",
        "web/test_http::test_trusted_proxies_say_who_calls",
    ),
    held(
        "4.2.1",
        2,
        "Where a message ends is said once",
        "web/test_http::test_lengths_that_contradict_each_other",
        "web/test_http::test_chunks_that_are_none",
        "web/test_http::test_what_is_not_http",
    ),
    outside("4.3.1", 2, "Costly GraphQL", "there is no GraphQL"),
    outside("4.3.2", 2, "GraphQL introspection", "there is no GraphQL"),
    outside("4.4.1", 1, "WebSockets over TLS", NO_SOCKETS),
    outside("4.4.2", 2, "Origins of WebSockets", NO_SOCKETS),
    outside("4.4.3", 2, "Tokens of WebSockets", NO_SOCKETS),
    outside("4.4.4", 2, "WebSockets take over a session", NO_SOCKETS),
    held(
        "4.1.4",
        3,
        "Methods that are not there are refused",
        "web/test_conventions::test_what_is_not_taken_is_refused_everywhere",
    ),
)

FILES = (
    held("5.1.1", 2, "What may be uploaded is written down", "web/test_openapi::test_each_operation_is_told_in_full"),
    held(
        "5.2.1",
        1,
        "Only files that can be worked with",
        "web/test_avatar::test_only_pictures_that_are_whole_and_small_enough",
        "services/test_storage::test_memory_does_not_grow_with_the_file",
    ),
    held(
        "5.2.2",
        1,
        "What a file is, its bytes say",
        "rules/test_pictures::test_other_kinds_of_files_are_not_taken",
        "rules/test_pictures::test_whatever_the_bytes_it_is_a_picture_or_refused",
        "rules/test_pictures::test_it_is_made_anew_and_fits",
    ),
    held(
        "5.2.3",
        2,
        "What is compressed is bounded before it is unpacked",
        "rules/test_pictures::test_a_bomb_is_refused_before_it_goes_off",
        "rules/test_pictures::test_text_that_unpacks_to_more_than_a_picture_is_refused",
        "rules/test_http_answers::test_a_bomb_is_not_inflated",
        why="no archives are taken",
    ),
    held(
        "5.3.1",
        1,
        "No file is run",
        "services/test_storage::test_nobody_else_can_look_into_the_folder",
        why="the storage is no folder that is served; files leave it through the API alone",
    ),
    held(
        "5.3.2",
        1,
        "Paths are of our own making",
        "services/test_storage::test_only_keys_of_our_own_making_are_taken",
        "mail/test_maildir::test_a_name_cannot_lead_out_of_the_folder",
    ),
    held(
        "5.4.1",
        2,
        "Names of users are no names of downloads",
        "web/test_export::test_first_it_is_made_and_then_it_is_there",
    ),
    held("5.4.2", 2, "Names in headers are encoded", "web/test_export::test_first_it_is_made_and_then_it_is_there"),
    outside(
        "5.4.3",
        2,
        "Files are scanned",
        "the only files that are taken are pictures, made anew from their pixels; attachments come later",
    ),
    held(
        "5.2.6",
        3,
        "Pictures with too many pixels are refused",
        "rules/test_pictures::test_a_bomb_is_refused_before_it_goes_off",
    ),
)

AUTHENTICATION = (
    held(
        "6.1.1",
        1,
        "How guessing is slowed down is written down",
        "services/test_login_lock::test_only_that_account_is_locked_and_unknown_ones_no_less",
        "services/test_password_reset::test_who_has_tried_in_vain_is_let_in",
        why="it stands in the OpenAPI document; who is locked out by others resets the password, and is in",
    ),
    open_(
        "6.1.2",
        2,
        "A list of words that passwords here must not be",
        "the contract names what is refused: the 20,000 most common, and the person's own address",
    ),
    held(
        "6.1.3",
        2,
        "All ways in are written down",
        "web/test_api_tokens::test_every_route_says_what_token_it_takes",
        "web/test_two_factor::test_nobody_has_two_factors",
    ),
    held("6.2.1", 1, "Passwords of 8 characters or more", "rules/test_passwords::test_what_is_not", why="ten"),
    held("6.2.2", 1, "Passwords can be changed", "web/test_passwords::test_change"),
    held(
        "6.2.3",
        1,
        "A change takes the old one",
        "services/test_password_change::test_what_is_refused_changes_nothing",
    ),
    held(
        "6.2.4",
        1,
        "Common passwords are refused",
        "rules/test_passwords::test_at_least_ten_thousand_common_ones_are_known_by_heart",
        "web/test_bad_input::test_bad_signups",
    ),
    held("6.2.5", 1, "Any characters will do", "rules/test_passwords::test_what_is_taken"),
    held(
        "6.2.6",
        1,
        "Password fields hide what is typed",
        "web/test_passwords::test_the_page_behind_the_link",
    ),
    held(
        "6.2.7",
        1,
        "Password managers work",
        "web/test_passwords::test_the_page_behind_the_link",
        why="one plain field with `autocomplete`, and no script",
    ),
    held(
        "6.2.8",
        1,
        "The password is checked as it was typed",
        "rules/test_passwords::test_one_password_however_it_is_typed",
        "rules/test_passwords::test_length_counts_after_nfkc",
        why="after NFKC, as NIST SP 800-63B has it; nothing is cut off",
    ),
    held("6.2.9", 2, "64 characters and more are taken", "rules/test_passwords::test_what_is_taken", why="128"),
    held(
        "6.2.10",
        2,
        "A password is good until somebody changes it",
        "services/test_sign_in::test_login",
        why="nothing in the tables says how old one is",
    ),
    open_("6.2.11", 2, "The list of 6.1.2 is used", "see 6.1.2; the person's own address is refused"),
    held(
        "6.2.12",
        2,
        "Passwords out of breaches are refused",
        "rules/test_passwords::test_at_least_ten_thousand_common_ones_are_known_by_heart",
        why="the list that ships is made of breaches; nobody outside is asked, as this runs inside walls",
    ),
    held(
        "6.3.1",
        1,
        "Guessing is slowed down",
        "services/test_login_lock::test_after_the_tenth_the_right_password_is_wrong_for_fifteen_minutes",
        "services/test_login_lock::test_of_guesses_at_once_none_wins_after_the_tenth",
        "web/test_rate_limits::test_all_password_routes_share_one_bucket_of_an_address",
        "web/test_rate_limits::test_every_route_that_takes_a_password_or_a_code_is_counted_by_address",
    ),
    held(
        "6.3.2",
        1,
        "There are no accounts to begin with",
        "services/test_sign_up::test_an_admin_from_the_command_line",
        why="the first administrator is made on the command line",
    ),
    open_(
        "6.3.3",
        2,
        "Two factors, for everybody",
        "people choose: two factors are offered, and not asked for, as the contract has it; API tokens take one",
    ),
    held(
        "6.3.4",
        2,
        "No way in is weaker than it says",
        "services/test_two_factor::test_a_code_works_once_and_not_one_before_it",
        "web/test_two_factor::test_on_in_and_off",
        "web/test_api_tokens::test_a_token_makes_no_tokens_and_changes_no_account",
        "web/test_passwords::test_links_of_other_kinds_reset_nothing",
    ),
    held(
        "6.3.7",
        3,
        "People are told when what they sign in with was changed",
        "rules/test_notices::test_every_event_has_its_words",
        "services/test_notices::test_what_when_and_from_where",
        "services/test_email_change::test_the_link_makes_it_the_address",
    ),
    held(
        "6.3.8",
        3,
        "Nobody learns who has an account",
        "services/test_sign_in::test_whether_an_account_is_there_is_told_only_to_who_knows_its_password",
        "services/test_sign_in::test_what_fails_costs_the_same_whatever_is_wrong",
        "services/test_password_reset::test_asking_is_the_same_work_for_whoever_it_is",
        "services/test_email_change::test_asking_is_the_same_work_for_a_taken_address",
        why="but at sign-up, where the contract answers 409 `email_taken`",
    ),
    held(
        "6.4.1",
        1,
        "Invitations are random, work once and not for long, and become no password",
        "web/test_passwords::test_an_invitation_opens_the_same_page",
        "web/test_users::test_who_was_invited_chooses_a_password_and_is_in",
    ),
    outside("6.4.2", 1, "No hints and no secret questions", "there are none"),
    held(
        "6.4.3",
        2,
        "A forgotten password is reset, and two factors stay two",
        "services/test_password_reset::test_a_link_to_a_new_password",
        "services/test_password_reset::test_two_factor_sign_in_stays_on",
    ),
    held(
        "6.4.4",
        2,
        "Who has lost the second factor must show who they are",
        "services/test_two_factor::test_a_recovery_code_works_once_and_is_told_of",
        "services/test_two_factor::test_the_command_line_turns_it_off",
        why="without recovery codes the operator decides, on the machine",
    ),
    held(
        "6.5.1",
        2,
        "Codes work once",
        "services/test_two_factor::test_a_code_works_once_and_not_one_before_it",
        "services/test_two_factor::test_of_uses_at_once_exactly_one_wins",
        "services/test_phone::test_of_fifty_uses_at_once_exactly_one_wins",
    ),
    held(
        "6.5.2",
        2,
        "Recovery codes are stored as digests",
        "services/test_two_factor::test_nothing_stored_gives_a_code_away",
        why="of 120 random bits, for which a plain digest is enough",
    ),
    held(
        "6.5.3",
        2,
        "Codes and seeds come from a CSPRNG",
        "security/test_source::test_random_numbers_that_matter_come_from_the_system",
    ),
    held(
        "6.5.4",
        2,
        "Codes of 20 bits or more",
        "rules/test_one_time_codes::test_recovery_codes_are_random_and_easy_to_type",
        "services/test_phone::test_five_tries",
        why="recovery codes of 120; six digits by SMS, and five tries at them",
    ),
    held(
        "6.5.5",
        2,
        "Codes are soon too old",
        "services/test_phone::test_codes_that_do_not_work",
        "rules/test_one_time_codes::test_a_code_lives_for_ninety_seconds",
        why="ten minutes by SMS; a step of 30 s, and one of clock skew either way, as the contract has it",
    ),
    held(
        "6.5.6",
        3,
        "A lost factor can be taken away",
        "services/test_two_factor::test_the_command_line_turns_it_off",
        "web/test_api_tokens::test_it_is_shown_once_and_works_until_it_is_deleted",
    ),
    outside("6.6.1", 2, "SMS as a factor", "SMS proves a telephone number, and signs nobody in"),
    held(
        "6.6.2",
        2,
        "A code is good for what it was asked for",
        "services/test_phone::test_the_newest_request_counts",
        "services/test_email_change::test_only_the_newest_link_works",
    ),
    held("6.6.3", 2, "Codes can't be guessed", "services/test_phone::test_five_tries"),
    outside("6.8.1", 2, "Identities of several providers", NO_PROVIDER),
    outside("6.8.2", 2, "Signed assertions", NO_PROVIDER),
    outside("6.8.3", 2, "SAML", NO_PROVIDER),
    outside("6.8.4", 2, "How strong a provider's sign-in was", NO_PROVIDER),
)

SESSIONS = (
    outside("7.1.1", 2, "How long sessions last is written down", "the OpenAPI document: 30 days after the last use"),
    outside("7.1.2", 2, "How many there may be is written down", "any number; people see and end them"),
    outside("7.1.3", 2, "Federated sessions", NO_PROVIDER),
    held(
        "7.2.1",
        1,
        "Tokens are checked by the service",
        "web/test_http::test_a_token_with_another_algorithm_or_key",
        "services/test_authentication::test_once_the_change_is_answered_no_process_lets_in",
    ),
    held("7.2.2", 1, "Tokens are made for each session", "services/test_sign_in::test_refresh_rotates"),
    held(
        "7.2.3",
        1,
        "Reference tokens are random, of 128 bits or more",
        "security/test_source::test_random_numbers_that_matter_come_from_the_system",
        "services/test_authentication::test_any_character_changed_makes_an_api_token_invalid",
        why="256 bits each",
    ),
    held("7.2.4", 1, "A sign-in makes a new session", "web/test_accounts::test_signup_login_refresh_logout"),
    held(
        "7.3.1",
        2,
        "Unused sessions end",
        "services/test_sign_in::test_a_session_ends_thirty_days_after_its_last_use",
        "web/test_sessions::test_one_that_was_not_used_for_thirty_days_is_over",
    ),
    open_(
        "7.3.2",
        2,
        "Sessions end after a while, whatever happens",
        "the contract ends them 30 days after their last use; each use changes the token, and of a stolen one "
        "the second use ends the session (test_a_used_one_ends_the_whole_session)",
    ),
    held(
        "7.4.1",
        1,
        "What has ended works no more",
        "services/test_sign_in::test_after_logout_nothing_works",
        "web/test_sessions::test_signing_out_elsewhere_works_at_once_in_every_process",
        "services/test_authentication::test_while_requests_come_in_none_is_let_in_after_the_answer",
    ),
    held(
        "7.4.2",
        1,
        "Whose account ends is signed out",
        "services/test_sign_in::test_whoever_is_deactivated_is_out_at_once",
        "web/test_users::test_who_is_deactivated_is_refused_at_once_and_signed_out_when_brought_back",
        "services/test_leaving::test_asking_for_deletion",
    ),
    held(
        "7.4.3",
        2,
        "Other sessions end when what one signs in with is changed",
        "services/test_password_change::test_a_new_password_ends_other_sessions",
        "services/test_password_reset::test_a_link_to_a_new_password",
    ),
    outside("7.4.4", 2, "Signing out is easy to find", BROWSER),
    held(
        "7.4.5",
        2,
        "Administrators can sign people out",
        "web/test_administration::test_signing_a_person_out_everywhere",
        "web/test_sessions::test_an_administrator_signs_somebody_out_in_every_process",
    ),
    held(
        "7.5.1",
        2,
        "Changing what one signs in with takes the password again",
        "services/test_email_change::test_what_asks_for_nothing",
        "services/test_two_factor::test_off_with_password_and_code",
        "services/test_two_factor::test_a_stolen_session_is_not_good_for_guessing",
        "services/test_password_change::test_what_is_refused_changes_nothing",
        why="not the telephone number, which signs nobody in and recovers nothing",
    ),
    held(
        "7.5.2",
        2,
        "People see their sessions, and end them",
        "web/test_sessions::test_where_i_am_signed_in",
        "web/test_sessions::test_one_may_end_the_session_that_one_uses",
        why="without a second question, which would only slow down whoever drives a thief out",
    ),
    outside("7.6.1", 2, "Federated sessions end with their provider's", NO_PROVIDER),
    held("7.6.2", 2, "No session without an act", "web/test_passwords::test_the_page_sets_the_password_once"),
)

AUTHORIZATION = (
    held(
        "8.1.1",
        1,
        "Who may do what is written down",
        "rules/test_access::test_the_table_knows_every_action_and_every_right",
        "rules/test_access::test_cells_spelled_out",
        why="one module of pure rules: scheduler/access.py",
    ),
    held("8.1.2", 2, "So is who may change which field", "web/test_access::test_each_field_by_itself"),
    held(
        "8.2.1",
        1,
        "Functions are for those who may",
        "web/test_conventions::test_who_may_not_is_told_the_same_everywhere",
        "web/test_api_tokens::test_a_token_opens_just_what_it_is_for",
        "web/test_access::test_each_right",
    ),
    held(
        "8.2.2",
        1,
        "Things are for those who may",
        "web/test_conventions::test_who_may_not_is_told_the_same_everywhere",
        "web/test_access::test_each_cell",
        "web/test_tasks::test_other_peoples_things_and_malformed_ids_are_the_same_404",
        "web/test_runs::test_what_others_caused_is_not_there",
    ),
    held(
        "8.2.3",
        2,
        "Fields are for those who may",
        "web/test_access::test_each_field_by_itself",
        "web/test_users::test_everybody_may_look_up_names_and_gets_no_more",
        "services/test_users::test_a_row_holds_nothing_that_signs_in",
    ),
    held(
        "8.3.1",
        1,
        "The service decides",
        "web/test_access::test_each_cell",
        "services/test_authentication::test_a_role_is_that_of_now_in_every_process",
    ),
    held(
        "8.3.2",
        3,
        "Changes count at once",
        "web/test_users::test_a_role_counts_with_the_next_request",
        "services/test_authentication::test_once_the_change_is_answered_no_process_lets_in",
        "process_tree/test_signed_in::test_in_every_process_at_once",
    ),
    outside("8.4.1", 2, "Tenants are apart", "an installation is one tenant"),
)

TOKENS = (
    held(
        "9.1.1",
        1,
        "Signatures are checked first",
        "rules/test_access_tokens::test_any_bit_changed_makes_it_invalid",
        "rules/test_access_tokens::test_any_bit_of_its_text_changed_makes_it_invalid",
        "rules/test_access_tokens::test_a_forged_one_does_not_pass_for_expired",
    ),
    held(
        "9.1.2",
        1,
        "One algorithm, and never none",
        "rules/test_access_tokens::test_no_algorithm_at_all",
        "web/test_http::test_a_token_with_another_algorithm_or_key",
    ),
    held(
        "9.1.3",
        1,
        "Keys are ours, whatever a token names",
        "rules/test_access_tokens::test_keys_rotate",
        "rules/test_access_tokens::test_any_edit_makes_it_invalid",
    ),
    held(
        "9.2.1",
        1,
        "Tokens count in their time",
        "rules/test_access_tokens::test_a_token_lives_fifteen_minutes",
        "rules/test_access_tokens::test_a_token_from_the_future_is_none",
        "rules/test_access_tokens::test_what_was_right_once_is_refused_once_its_time_is_over",
    ),
    held(
        "9.2.2",
        2,
        "A token is of the kind that is asked for",
        "rules/test_access_tokens::test_signed_by_us_yet_not_a_token_of_ours",
        "web/test_bad_input::test_tokens_that_are_none",
    ),
    held("9.2.3", 2, "A token is meant for us", "rules/test_access_tokens::test_signed_by_us_yet_not_a_token_of_ours"),
    held("9.2.4", 2, "Audiences are apart", "rules/test_access_tokens::test_signed_by_us_yet_not_a_token_of_ours"),
)

CRYPTOGRAPHY = (
    outside(
        "11.1.1",
        2,
        "How keys live is written down",
        "README.md: PUNCTUAL_SECRET_KEY is a list, newest first, and rotates",
    ),
    outside(
        "11.1.2",
        2,
        "An inventory of cryptography",
        "scheduler/encryption.py, passwords.py, access_tokens.py, digests.py",
    ),
    outside("11.2.1", 2, "Proven implementations", "cryptography, argon2-cffi, PyJWT, and Python's ssl and hashlib"),
    held(
        "11.2.2",
        2,
        "Keys and parameters can be changed",
        "rules/test_encryption::test_keys_rotate",
        "rules/test_access_tokens::test_keys_rotate",
        "services/test_sign_in::test_a_hash_with_old_parameters_is_made_anew",
        "services/test_two_factor::test_a_secret_is_encrypted_anew_once_there_is_a_newer_key",
    ),
    held(
        "11.2.3",
        2,
        "128 bits of security",
        "web/test_tls::test_what_is_offered",
        "rules/test_settings::test_production_refuses_to_start_without",
    ),
    held("11.3.1", 1, "No weak modes", "rules/test_encryption::test_whatever_is_changed_is_refused"),
    held(
        "11.3.2",
        1,
        "Approved ciphers",
        "rules/test_encryption::test_what_was_encrypted_comes_back",
        why="Fernet: AES-128-CBC with HMAC-SHA256, encrypt then MAC",
    ),
    held(
        "11.3.3", 2, "What is encrypted can't be changed", "rules/test_encryption::test_whatever_is_changed_is_refused"
    ),
    held(
        "11.4.1",
        1,
        "Approved hashes",
        "security/test_source::test_no_broken_hashes",
    ),
    held(
        "11.4.2",
        2,
        "Passwords by a slow function",
        "services/test_sign_in::test_a_hash_with_old_parameters_is_made_anew",
    ),
    held(
        "11.4.3",
        2,
        "Hashes that are long enough",
        "security/test_source::test_no_broken_hashes",
        why="SHA-256 and longer; BLAKE2b of 96 bits where it is an ETag, which proves nothing to anybody",
    ),
    outside(
        "11.4.4", 2, "Keys derived from passwords", "there are none; keys come from a secret of 32 characters or more"
    ),
    held(
        "11.5.1",
        2,
        "What must not be guessed is random, of 128 bits or more",
        "security/test_source::test_random_numbers_that_matter_come_from_the_system",
        why="codes by SMS are shorter, and five tries are all there is",
    ),
    outside(
        "11.6.1",
        2,
        "Approved public-key algorithms",
        "TLS alone has them, and what certificates hold is the operator's",
    ),
)

TLS = (
    held("12.1.1", 1, "TLS 1.2 and 1.3, and nothing older", "web/test_tls::test_what_is_offered"),
    held("12.1.2", 2, "Strong suites only", "web/test_tls::test_what_is_offered"),
    outside("12.1.3", 2, "Client certificates", "none are asked for"),
    held(
        "12.2.1",
        1,
        "Where there is TLS there is no way around it",
        "web/test_tls::test_what_is_offered",
        "web/test_tls::test_answers_over_tls_say_so",
    ),
    held(
        "12.2.2",
        1,
        "Certificates that everybody trusts",
        "web/test_tls::test_sighup_reads_the_certificate_again",
        "process_tree/test_tls::test_sighup_brings_the_new_certificate_without_a_pause",
        why="the operator gets them; renewing them needs no pause",
    ),
    open_(
        "12.3.1",
        2,
        "TLS to every other server",
        "it is there for mail, SMS, storage and Redis (smtps, STARTTLS, https, rediss), and the "
        "operator's to switch on: on one machine a unix socket is as good",
    ),
    held(
        "12.3.2",
        2,
        "Certificates of others are verified",
        "http_requests/test_client::test_a_certificate_of_nobody_that_we_know",
        "http_requests/test_client::test_a_certificate_for_somebody_else",
        "mail/test_smtp_servers::test_wrong_certificate",
        "services/test_storage::test_the_certificate_of_a_bucket_is_verified",
        "sms/test_gateway::test_the_certificate_is_checked",
    ),
    outside(
        "12.3.3",
        2,
        "TLS between our own services",
        "web and worker speak to each other through database and Redis alone",
    ),
    outside(
        "12.3.4",
        2,
        "Certificates between our own services",
        "web and worker speak to each other through database and Redis alone",
    ),
)

LOGS_AND_ERRORS = (
    outside(
        "16.1.1",
        2,
        "What is logged is written down",
        "README.md: JSON on standard output, kept for a month in the database",
    ),
    held(
        "16.2.1",
        2,
        "When, where, who, what",
        "services/test_log_records::test_a_record_as_it_is_stored",
        "web/test_logged::test_refusals_are_in_the_log_with_who_and_what",
    ),
    held("16.2.2", 2, "Times are in UTC", "rules/test_clock::test_the_present_is_aware_and_in_utc"),
    held(
        "16.2.3",
        2,
        "Logs go where they should",
        "services/test_log_records::test_the_process_writes_its_log_where_it_always_did",
    ),
    held("16.2.4", 2, "One format for all", "rules/test_logs::test_libraries_write_the_same_lines"),
    held(
        "16.2.5",
        2,
        "No secrets in logs",
        "rules/test_logs_redaction::test_a_secret_is_found_wherever_it_stands",
        "services/test_sign_in::test_the_log_says_who_and_why_and_no_secrets",
        "web/test_api_tokens::test_no_log_shows_it",
    ),
    held(
        "16.3.1",
        2,
        "Sign-ins are logged, and failures",
        "services/test_sign_in::test_the_log_says_who_and_why_and_no_secrets",
        "web/test_logged::test_refusals_are_in_the_log_with_who_and_what",
    ),
    held("16.3.2", 2, "Refusals are logged", "web/test_logged::test_refusals_are_in_the_log_with_who_and_what"),
    held(
        "16.3.3",
        2,
        "Attempts to get around things are logged",
        "web/test_logged::test_refusals_are_in_the_log_with_who_and_what",
        "web/test_logs::test_what_the_api_itself_tells_of_security_is_found_there",
    ),
    held(
        "16.3.4",
        2,
        "What nobody foresaw is logged",
        "web/test_logged::test_what_nobody_foresaw_is_in_the_log_and_not_in_the_answer",
        "web/test_tls::test_a_certificate_that_is_none_leaves_the_old_one",
    ),
    held(
        "16.4.1",
        2,
        "No text becomes a line of the log",
        "rules/test_logs::test_a_line_is_one_json_object",
        "rules/test_logs::test_no_field_passes_for_what_is_in_every_line",
        "web/test_logged::test_no_text_begins_a_line",
    ),
    held(
        "16.4.2",
        2,
        "Logs are for administrators, and nobody changes them",
        "web/test_conventions::test_who_may_not_is_told_the_same_everywhere",
        "web/test_logs::test_every_filter",
    ),
    outside("16.4.3", 2, "Logs go to another system", "they stand on standard output, for the operator's collector"),
    held(
        "16.5.1",
        2,
        "Errors tell nothing of our insides",
        "web/test_logged::test_what_nobody_foresaw_is_in_the_log_and_not_in_the_answer",
        "web/test_http::test_what_is_not_http",
        "rules/test_settings::test_the_line_tells_no_secret",
    ),
    held(
        "16.5.2",
        2,
        "It works on when others are away",
        "web/test_health::test_the_database_hangs_and_comes_back",
        "web/test_rate_limits::test_each_process_alone_while_redis_is_away",
        "services/test_authentication::test_without_redis_each_request_reads_the_table",
        "services/test_outbox::test_while_the_server_is_away_tries_do_not_count_and_then_all_goes_out",
    ),
    held(
        "16.5.3",
        2,
        "Errors let nobody in and leave nothing half done",
        "web/test_idempotency::test_a_failure_of_ours_frees_the_key",
        "web/test_rate_limits::test_each_process_alone_while_redis_is_away",
        "web/test_avatar::test_a_storage_that_is_away_is_a_503_and_changes_nothing",
    ),
    held(
        "16.5.4",
        3,
        "Whatever is raised is caught",
        "web/test_logged::test_what_nobody_foresaw_is_in_the_log_and_not_in_the_answer",
    ),
)

ELSEWHERE = (
    held(
        "14.2.7",
        3,
        "What is not needed any longer goes by itself",
        "services/test_cleanup::test_what_is_past_goes_to_the_microsecond",
        "services/test_erasure::test_nothing_says_who_it_was",
    ),
    held(
        "14.2.8", 3, "Pictures lose what they carried", "rules/test_pictures::test_nothing_is_left_of_what_it_carried"
    ),
    held("14.3.2", 2, "Answers are not cached", "web/test_conventions::test_who_may_not_is_told_the_same_everywhere"),
    held(
        "15.2.1",
        1,
        "No component with known faults",
        "security/test_audit::test_a_vulnerable_package_fails",
        why="`make audit`, in continuous integration",
    ),
    held("15.3.1", 1, "Answers hold what they should", "services/test_users::test_a_row_holds_nothing_that_signs_in"),
    held(
        "15.3.2",
        2,
        "Redirects are followed where they are wanted",
        "http_requests/test_client::test_five_redirects_are_followed_and_no_more",
    ),
    held(
        "15.3.3",
        2,
        "No field is set that is not meant to be",
        "web/test_conventions::test_what_is_not_taken_is_refused_everywhere",
        "web/test_bad_input::test_bad_signups",
    ),
    held(
        "15.3.4",
        2,
        "The caller's address is the true one",
        "web/test_client_address::test_whose_address_counts",
        "web/test_rate_limits::test_behind_a_proxy_each_caller_has_their_own",
    ),
    held(
        "15.3.7",
        2,
        "A parameter given twice is no way around anything",
        "web/test_http::test_of_equal_keys_the_last_wins_and_errors_are_named",
    ),
)

ROWS = (
    *ENCODING,
    *VALIDATION,
    *BROWSERS,
    *HTTP,
    *FILES,
    *AUTHENTICATION,
    *SESSIONS,
    *AUTHORIZATION,
    *TOKENS,
    *CRYPTOGRAPHY,
    *TLS,
    *LOGS_AND_ERRORS,
    *ELSEWHERE,
)
