// The C++ wrapper: ownership, exceptions in both directions, durations.

#include "amp_token.hpp"
#include "amp_token.hpp" // twice: the include guard

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <thread>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::cerr << __FILE__ << ':' << __LINE__ << ": not so: " << #condition << '\n';                            \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

namespace {

static_assert(!std::is_copy_constructible<amp::config>::value, "a config has one owner");
static_assert(!std::is_copy_constructible<amp::token_cache>::value, "a cache has one owner");
static_assert(std::is_nothrow_move_constructible<amp::config>::value, "moving is free");
static_assert(std::is_nothrow_move_constructible<amp::token_cache>::value, "moving is free");
static_assert(std::is_nothrow_move_assignable<amp::token_cache>::value, "moving is free");
static_assert(!std::is_copy_constructible<amp::response>::value, "a response has one owner");
static_assert(std::is_nothrow_move_assignable<amp::response>::value, "moving is free");
static_assert(std::is_nothrow_copy_constructible<amp::token>::value, "copying a token only counts");
static_assert(std::is_nothrow_copy_constructible<amp::error>::value, "exceptions are copied while others fly");
static_assert(std::is_nothrow_copy_constructible<amp::transport_error>::value, "the same");
static_assert(std::is_base_of<std::runtime_error, amp::error>::value, "caught as any other");
static_assert(std::is_base_of<std::runtime_error, amp::transport_error>::value, "caught as any other");
static_assert(std::is_nothrow_default_constructible<amp::token>::value, "an empty member");
static_assert(std::is_nothrow_default_constructible<amp::token_cache>::value, "an empty member");
static_assert(std::is_nothrow_default_constructible<amp::response>::value, "an empty member");

/// Whether a call with an object of this type compiles.
template <class T, class = void> struct has_c_str : std::false_type {};
template <class T>
struct has_c_str<T, decltype(static_cast<void>(std::declval<T>().c_str()))> : std::true_type {};
template <class T, class = void> struct has_data : std::false_type {};
template <class T>
struct has_data<T, decltype(static_cast<void>(std::declval<T>().data()))> : std::true_type {};
template <class T, class = void> struct has_header : std::false_type {};
template <class T>
struct has_header<T, decltype(static_cast<void>(std::declval<T>().header("a")))> : std::true_type {};
template <class T, class = void> struct has_next_page : std::false_type {};
template <class T>
struct has_next_page<T, decltype(static_cast<void>(std::declval<T>().next_page()))> : std::true_type {};
static_assert(has_c_str<const amp::token &>::value && !has_c_str<amp::token>::value, "no pointer into a temporary");
static_assert(has_data<amp::response &>::value && !has_data<amp::response>::value, "no pointer into a temporary");
static_assert(has_header<amp::response &>::value && !has_header<const amp::response>::value, "the same");
static_assert(has_next_page<amp::response &>::value && !has_next_page<amp::response>::value, "the same");
#if __cplusplus >= 201703L
template <class T, class = void> struct has_views : std::false_type {};
template <class T>
struct has_views<T, decltype(static_cast<void>(std::declval<T>().value_view()),
                             static_cast<void>(std::declval<T>().authorization_view()))> : std::true_type {};
static_assert(has_views<const amp::token &>::value && !has_views<amp::token>::value, "no view of a temporary");
template <class T, class = void> struct has_body_view : std::false_type {};
template <class T>
struct has_body_view<T, decltype(static_cast<void>(std::declval<T>().body_view()))> : std::true_type {};
static_assert(has_body_view<amp::response &>::value && !has_body_view<amp::response>::value, "the same");
#endif

struct fake {
    std::atomic<int> requests{0};
    int status = 200;
};

amp::config fake_config(fake &server) {
    amp::config config;
    config.set("client_id", "id").set("client_secret", std::string("secret")).set("retries", 0);
    config.transport([&server](const amp::http_request &request, amp::http_reply &reply) {
        CHECK(std::strcmp(request.method(), "POST") == 0);
        CHECK(std::strcmp(request.url(), "https://auth.amplience.net/oauth/token") == 0);
        CHECK(std::strcmp(request.header("content-type"), "application/x-www-form-urlencoded") == 0);
        CHECK(request.header_name(0) != nullptr && request.header_name(100) == nullptr);
        CHECK(std::string(static_cast<const char *>(request.body()), request.body_length()).find("client_id=id") == 0);
        CHECK(request.timeout() > std::chrono::milliseconds::zero());
        reply.status(server.status);
        reply.header("Content-Type", "application/json");
        reply.body("{\"access_token\":\"token-" + std::to_string(++server.requests) + "\",\"expires_in\":300}");
    });
    return config;
}

/// The amp::error that a call throws.
template <class Call> amp::error failure_of(Call call) {
    try {
        call();
    } catch (const amp::error &failure) {
        return failure;
    }
    CHECK(!"it succeeded");
    std::abort();
}

void tokens_outlive_their_cache() {
    fake server;
    amp::token first(nullptr), copy(nullptr);
    CHECK(!first && first.value().empty() && first.authorization().empty());
    {
        amp::token_cache cache(fake_config(server));
        first = cache.get();
        copy = first;
        amp::token_cache moved(std::move(cache));
        CHECK(moved.get().value() == "token-1");
        CHECK(failure_of([&] { cache.get(); }).status() == AMP_INVALID_ARGUMENT); // moved from
        CHECK(*moved.epoch() > 0 && moved.statistic("requests") == 1 && moved.statistic("none") == -1);
    }
    amp::token taken(std::move(first));
    CHECK(!first && taken && copy);
    CHECK(taken.c_str() == copy.c_str()); // the same token, not a copy of its string
    copy = *&copy;
    CHECK(copy.authorization() == "Bearer token-1" && copy.length() == 7);
    CHECK(!copy.never_expires() && copy.expires_in() > std::chrono::seconds(200));
    CHECK(copy.expires_at() > std::chrono::system_clock::now());
    CHECK(copy.refresh_in() > std::chrono::seconds(100) && copy.refresh_in() < std::chrono::seconds(241));
    CHECK(server.requests == 1);
}

void a_personal_access_token_never_expires() {
    amp::config config;
#if __cplusplus >= 201703L
    config.set("personal_access_token", std::string_view("amp_pat_a.bcd").substr(0, 11));
#else
    config.set("personal_access_token", "amp_pat_a.b");
#endif
    const amp::token token = amp::get_token(config);
    CHECK(token.value() == "amp_pat_a.b" && token.never_expires());
    CHECK(token.expires_at() == std::chrono::system_clock::time_point::max());
    CHECK(token.expires_in() == std::chrono::seconds::max());
#if __cplusplus >= 201703L
    CHECK(token.value_view() == "amp_pat_a.b" && token.authorization_view() == "Bearer amp_pat_a.b");
    CHECK(token.value_view().data() == token.c_str());
#endif
}

void settings_come_in_many_types() {
    amp::config config;
    config.set("timeout_ms", std::chrono::seconds(2)).set("connect_timeout_ms", std::chrono::microseconds(1500));
    config.set("retries", 3U).set("min_validity_ms", 0LL).set("background_refresh", true).unset("retries");
    const amp::error unknown = failure_of([&] { config.set("clientid", "x"); });
    CHECK(unknown.status() == AMP_INVALID_ARGUMENT && std::strstr(unknown.what(), "clientid"));
    CHECK(failure_of([&] { config.set("retries", -1); }).status() == AMP_INVALID_ARGUMENT);
    CHECK(failure_of([&] { config.set("timeout_ms", std::chrono::microseconds(1)); }).status() == AMP_INVALID_ARGUMENT);
    CHECK(failure_of([&] { amp::token_cache cache(config); }).status() == AMP_NO_CREDENTIALS);
    amp::config moved(std::move(config));
    CHECK(failure_of([&] { config.set("retries", 1); }).status() == AMP_INVALID_ARGUMENT);
    config = std::move(moved);
    config.set("retries", 1);
}

void errors_tell_what_the_server_said() {
    fake server;
    server.status = 429;
    amp::token_cache cache(fake_config(server));
    const amp::error failure = failure_of([&] { cache.get(); });
    const amp::error copy(failure);
    CHECK(copy.status() == AMP_RATE_LIMITED && std::strcmp(copy.status_name(), "AMP_RATE_LIMITED") == 0);
    CHECK(copy.http_status() == 429 && copy.retryable() && copy.attempts() == 1 && !copy.oauth_code());
    CHECK(copy.retry_after() >= std::chrono::milliseconds::zero());
    CHECK(copy.what() == failure.what());
    const amp::error empty(AMP_INTERNAL, nullptr);
    CHECK(std::strcmp(empty.what(), "AMP_INTERNAL") == 0 && !empty.retryable() && empty.http_status() == 0);
    CHECK(empty.retry_after() < std::chrono::milliseconds::zero());
}

void errors_fit_the_standard_library() {
    const amp::config config;
    try {
        amp::get_token(config);
        CHECK(!"it succeeded");
    } catch (const std::runtime_error &failure) {
        CHECK(std::strlen(failure.what()) > 0);
    }
    const amp::error timeout(AMP_TIMEOUT, nullptr);
    CHECK(timeout && timeout.code().value() == AMP_TIMEOUT && timeout.code().message() == "AMP_TIMEOUT");
    CHECK(timeout.code().category() == amp::category() && std::strcmp(amp::category().name(), "amp_token") == 0);
    CHECK(timeout.code() == std::errc::timed_out && timeout.code() != std::errc::io_error);
    CHECK(amp::error(AMP_IO, nullptr).code() == std::errc::io_error);
    CHECK(amp::error(AMP_TLS, nullptr).code().default_error_condition().category() == amp::category());
    CHECK(!amp::error() && !amp::error().code());
    CHECK(std::strcmp(amp::version(), amp_version()) == 0);
}

void calls_without_exceptions() {
    fake server;
    amp::error failure;
    amp::config config = fake_config(server);
    CHECK(!config.set("no_such_setting", 1, failure) && failure.status() == AMP_INVALID_ARGUMENT);
    CHECK(config.set("retries", 0, failure) && !failure);
    CHECK(config.set("background_refresh", false, failure) && config.set("client_id", "id", failure));
#if __cplusplus >= 201703L
    CHECK(config.set("user_agent", std::string_view("tests").substr(0, 4), failure) && !failure);
#endif
    CHECK(config.set("user_agent", std::string("test"), failure) && config.unset("user_agent", failure));
    CHECK(config.set("timeout_ms", std::chrono::seconds(5), failure) && config.queue_log_lines(8, failure));
    CHECK(!config.set("timeout_ms", std::chrono::seconds(0), failure) && failure);

    amp::token_cache cache;
    CHECK(!cache && !cache.get(failure) && failure.status() == AMP_INVALID_ARGUMENT);
    CHECK(failure_of([&] { cache.get(); }).status() == AMP_INVALID_ARGUMENT);
    cache = amp::token_cache(config, failure);
    CHECK(cache && !failure);
    const amp::token token = cache.get(failure);
    CHECK(token.value() == "token-1" && !failure && amp::get_token(config, failure).value() == "token-2");
    CHECK(cache.get_for(std::chrono::minutes(1), failure).value() == "token-1");
    CHECK(!cache.get_for(std::chrono::hours(1), failure) && failure.status() == AMP_INVALID_ARGUMENT);
    char buffer[16];
    CHECK(cache.copy(buffer, sizeof buffer, failure) == 7 && !failure);
    CHECK(cache.copy(buffer, 1, failure) == 0 && failure.status() == AMP_BUFFER_TOO_SMALL);
    server.status = 429;
    const amp::token_cache failing(config, failure);
    CHECK(!failing.get(failure) && failure.status() == AMP_RATE_LIMITED && failure.http_status() == 429);
}

void log_lines_and_events_are_reported() {
    fake server;
    amp::config config = fake_config(server);
    std::vector<std::int32_t> events;
    config.queue_log_lines(100).observer([&events](std::int32_t event, const amp_error *failure) {
        CHECK((event == AMP_EVENT_REFRESH_FAILED) == (failure != nullptr));
        CHECK(!failure || amp_error_status(failure) == AMP_SERVER);
        events.push_back(event);
        throw 5;
    });
    const amp::token_cache cache(config);
    const amp::token first = cache.get();
    CHECK(cache.report(first, 401, std::string()) && cache.get().value() == "token-2");
    CHECK(!cache.report(first, 403, "no permission", 13) && !cache.report(first, 200, std::string()));
    server.status = 503;
    CHECK(failure_of([&] { amp::get_token(config); }).status() == AMP_SERVER);
    CHECK(events.size() >= 3 && events[0] == AMP_EVENT_REFRESHED && events[1] == AMP_EVENT_TOKEN_REJECTED);
    std::int32_t level = 0;
    std::string line;
    int tokens = 0;
    while (config.next_log_line(level, line)) {
        CHECK(level >= AMP_LOG_ERROR && level <= AMP_LOG_INFO && !line.empty());
        tokens += line.find("got token") != std::string::npos;
    }
    CHECK(tokens == 2);
}

void an_event_loop_never_waits() {
    fake server;
    const amp::token_cache cache(fake_config(server));
    amp::token token;
    CHECK(!token && token.value().empty());
    while (!(token = cache.try_get())) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(token.value() == "token-1" && cache.try_get().value() == "token-1");
    server.status = 503;
    const amp::token_cache failing(fake_config(server));
    amp::error failure;
    while (!failing.try_get(failure) && failure.status() == AMP_PENDING) {
        CHECK(failure.retry_after() > std::chrono::milliseconds::zero());
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(failure.status() == AMP_SERVER);
}

void exceptions_of_callbacks_stay_on_their_side() {
    fake server;
    amp::config config = fake_config(server);
    int lines = 0;
    config.logger([&lines](std::int32_t level, const char *message) {
        CHECK(level >= AMP_LOG_ERROR && message[0] != '\0');
        ++lines;
        throw 5;
    });
    amp::token_cache good(config);
    CHECK(good.get().value() == "token-1" && lines > 0);

    config.transport([](const amp::http_request &, amp::http_reply &) {
        throw amp::transport_error(AMP_TLS, "the certificate is strange");
    });
    amp::error failure = failure_of([&] { amp::get_token(config); });
    CHECK(failure.status() == AMP_TLS && std::strstr(failure.what(), "the certificate is strange"));
    config.transport([](const amp::http_request &, amp::http_reply &) { throw std::string("secret"); });
    failure = failure_of([&] { amp::get_token(config); });
    CHECK(failure.status() == AMP_CONNECT && !std::strstr(failure.what(), "secret"));

    const int before = lines;
    config.logger(nullptr);
    failure_of([&] { amp::get_token(config); });
    CHECK(lines == before);
}

void a_copy_needs_room() {
    fake server;
    amp::token_cache cache(fake_config(server));
    char buffer[16];
    CHECK(cache.copy(buffer, sizeof buffer) == 7 && std::strcmp(buffer, "token-1") == 0);
    CHECK(failure_of([&] { cache.copy(buffer, 7); }).status() == AMP_BUFFER_TOO_SMALL);
}

void a_refused_token_is_replaced() {
    fake server;
    amp::token_cache cache(fake_config(server));
    const amp::token refused = cache.get();
    cache.invalidate(refused);
    CHECK(cache.get().value() == "token-2");
    cache.invalidate(refused);
    CHECK(cache.get_for(std::chrono::minutes(1)).value() == "token-2");
    CHECK(cache.get_for(std::chrono::duration<double>(0.0001)).value() == "token-2");
    CHECK(failure_of([&] { cache.get_for(std::chrono::hours(1)); }).status() == AMP_INVALID_ARGUMENT);
    CHECK(failure_of([&] { cache.get_for(std::chrono::seconds(-1)); }).status() == AMP_INVALID_ARGUMENT);
    CHECK(server.requests == 2);
}

void threads_share_a_cache() {
    fake server;
    const amp::token_cache cache(fake_config(server));
    std::vector<std::thread> threads;
    for (int i = 0; i < 16; i++)
        threads.emplace_back([&cache] {
            for (int round = 0; round < 100; round++)
                CHECK(cache.get().value() == "token-1");
        });
    for (std::thread &thread : threads)
        thread.join();
    CHECK(server.requests == 1);
}

/// An API behind a transport: it records the last request, and its collection has three pages.
struct api {
    int tokens = 0;
    std::string last, if_match;
    std::chrono::milliseconds left;

    void answer(const amp::http_request &request, amp::http_reply &reply) {
        const std::string url = request.url();
        const std::string body(static_cast<const char *>(request.body()), request.body_length());
        reply.status(200);
        if (url == "https://auth.amplience.net/oauth/token") {
            reply.body("{\"access_token\":\"token-" + std::to_string(++tokens) + "\",\"expires_in\":300}");
            return;
        }
        const char *kind = request.header("Content-Type"), *match = request.header("If-Match");
        if_match = match ? match : "";
        left = request.timeout();
        last = request.method() + std::string(" ") + url + " " + (kind ? kind : "-") + " " + body;
        if (std::strcmp(request.header("Authorization"), "Bearer token-1") == 0 && tokens == 1 &&
            url == "https://api.amplience.net/revoked") {
            reply.status(401);
            return;
        }
        const std::size_t page = url.find("page=");
        reply.header("X-Trace", "abc");
        if (url.find("/hubs") != std::string::npos)
            reply.body("{\"page\":{\"number\":" + std::string(page == std::string::npos ? "0" : url.substr(page + 5)) +
                       ",\"totalPages\":3}}");
        else if (url.find("/none") != std::string::npos)
            reply.status(404);
    }

    amp::token_cache cache() {
        amp::config config;
        config.set("client_id", "id").set("client_secret", "secret").set("retries", 0);
        config.transport([this](const amp::http_request &request, amp::http_reply &reply) { answer(request, reply); });
        return amp::token_cache(config);
    }
};

void requests_carry_the_token() {
    api server;
    amp::response first(nullptr);
    CHECK(!first && first.status() == 0 && !first.ok() && first.body().empty() && !first.next_page());
    {
        const amp::token_cache cache = server.cache();
        first = cache.request("GET", "/v2/content/hubs");
        CHECK(server.last == "GET https://api.amplience.net/v2/content/hubs - ");
        CHECK(cache.request("GET", "/none").status() == 404 && !cache.request("GET", "/none").ok());
        const amp::response none = cache.request("GET", "/none");
        CHECK(none.data() == nullptr && none.size() == 0);
        const std::string body("with\0inside", 11);
        CHECK(cache.request("PUT", "/item", "text/plain", body).ok());
        CHECK(server.last == "PUT https://api.amplience.net/item text/plain " + body);
        CHECK(server.tokens == 1);
        CHECK(cache.request("GET", "/revoked").ok() && server.tokens == 2);
        std::string taken;
        const amp::response got = cache.download("/v2/content/hubs", [&taken](const char *data, std::size_t size) {
            taken.append(data, size);
            return true;
        });
        CHECK(got.ok() && got.size() == 0 && taken == first.body());
        CHECK(failure_of([&] { cache.download("/v2/content/hubs", [](const char *, std::size_t) { return false; }); }).status() == AMP_IO);
        bool caught = false;
        try {
            cache.download("/v2/content/hubs", [](const char *, std::size_t) -> bool { throw std::runtime_error("full"); });
        } catch (const std::runtime_error &error) {
            caught = std::string(error.what()) == "full";
        }
        CHECK(caught);
        const amp::header_list headers = {{"content-type", "text/csv"}, {"If-Match", "\"1\""}};
        CHECK(cache.send("PUT", "/item", headers, "a,b", std::chrono::seconds(9)).ok());
        CHECK(server.last == "PUT https://api.amplience.net/item text/csv a,b" && server.if_match == "\"1\"");
        CHECK(server.left > std::chrono::seconds(1) && server.left <= std::chrono::seconds(9));
        CHECK(cache.send("GET", "/v2/content/hubs", {}).ok() && server.left > std::chrono::seconds(9));
        CHECK(failure_of([&] { cache.send("GET", "/x", {{"Host", "x"}}); }).status() == AMP_INVALID_ARGUMENT);
        CHECK(failure_of([&] { cache.request("GET", "https://elsewhere.example/"); }).status() == AMP_INVALID_ARGUMENT);
        CHECK(failure_of([&] { cache.request("PUT", "/item", "a\nb", body); }).status() == AMP_INVALID_ARGUMENT);
    }
    // The response stays valid without its cache.
    const amp::response moved(std::move(first));
    CHECK(!first && moved && moved.ok() && std::strcmp(moved.header("x-trace"), "abc") == 0 && !moved.header("X-None"));
    CHECK(moved.body() == std::string(moved.data(), moved.size()) && moved.body().find("totalPages") != std::string::npos);
    CHECK(std::strcmp(moved.next_page(), "/v2/content/hubs?page=1") == 0);
#if __cplusplus >= 201703L
    CHECK(moved.body_view() == moved.body() && moved.body_view().data() == moved.data());
#endif
}

void requests_without_exceptions() {
    api server;
    amp::error failure;
    const amp::token_cache cache = server.cache();
    CHECK(cache.request("GET", "/v2/content/hubs", failure).ok() && cache.graphql("{ a }", failure).ok() && !failure);
    CHECK(!cache.graphql("{ a }", "[]", failure) && failure.status() == AMP_INVALID_ARGUMENT);
    CHECK(!cache.request("GET", "https://elsewhere.example/", failure) && failure);
    CHECK(cache.create_personal_access_token("a", "b", failure).ok() && !failure);
    int pages = 0;
    cache.pages("/v2/content/hubs", [&pages](const amp::response &) { ++pages; }, failure);
    CHECK(pages == 3 && !failure);
    cache.pages("https://elsewhere.example/", [&pages](const amp::response &) { ++pages; }, failure);
    CHECK(pages == 3 && failure);
    std::string taken;
    const auto take = [&taken](const char *data, std::size_t size) { return taken.append(data, size).size() > 0; };
    CHECK(cache.download("/v2/content/hubs", take, failure).ok() && !taken.empty() && !failure);
    CHECK(cache.request("PUT", "/item", "text/plain", "text", failure).ok() && !failure);
    CHECK(server.last == "PUT https://api.amplience.net/item text/plain text");
    CHECK(cache.send("GET", "/item", {{"If-Match", "x"}}, "", std::chrono::seconds(1), failure).ok() && !failure);
    CHECK(!cache.send("GET", "/item", {}, "", std::chrono::seconds(-1), failure) && failure);
    CHECK(!cache.download("/v2/content/hubs", [](const char *, std::size_t) { return false; }, failure));
    CHECK(failure.status() == AMP_IO);
    try {
        cache.download("/v2/content/hubs", [](const char *, std::size_t) -> bool { throw 5; }, failure);
        CHECK(!"it succeeded");
    } catch (int thrown) {
        CHECK(thrown == 5);
    }
}

void graphql_has_variables() {
    api server;
    const amp::token_cache cache = server.cache();
    CHECK(cache.graphql("{ a }").ok());
    CHECK(server.last == "POST https://api.amplience.net/graphql application/json {\"query\":\"{ a }\",\"variables\":{}}");
    CHECK(cache.graphql("{ a }", "{\"b\":1}").ok() && server.last.find("\"variables\":{\"b\":1}") != std::string::npos);
    CHECK(failure_of([&] { cache.graphql("{ a }", "[]"); }).status() == AMP_INVALID_ARGUMENT);
    CHECK(cache.create_personal_access_token("a \"name\"", "org").ok());
    CHECK(server.last.find("createPersonalAccessToken") != std::string::npos);
}

void pages_are_walked() {
    api server;
    const amp::token_cache cache = server.cache();
    std::string seen;
    cache.pages("/v2/content/hubs?size=1", [&](const amp::response &page) {
        CHECK(page.ok());
        seen += server.last.substr(server.last.find('?')) + ";";
    });
    CHECK(seen == "?size=1 - ;?size=1&page=1 - ;?size=1&page=2 - ;");
    int visits = 0;
    cache.pages("/none", [&](const amp::response &page) {
        CHECK(page.status() == 404);
        ++visits;
    });
    CHECK(visits == 1);
    try {
        cache.pages("/v2/content/hubs", [](const amp::response &) { throw 7; });
        CHECK(!"it went on");
    } catch (int thrown) {
        CHECK(thrown == 7);
    }
}

void callbacks_end_for_good() {
    fake server;
    amp::config config = fake_config(server);
    std::atomic<int> lines{0};
    config.logger([&lines](std::int32_t, const char *) { ++lines; });
    const amp::token_cache cache(config);
    CHECK(cache.get().value() == "token-1");
    config.stop_callbacks();
    const int before = lines;
    cache.invalidate(cache.get());
    CHECK(failure_of([&] { cache.get(); }).status() == AMP_CONNECT);
    CHECK(lines == before && server.requests == 1);
    config.stop_callbacks();
}

} // namespace

int main() {
    requests_carry_the_token();
    requests_without_exceptions();
    graphql_has_variables();
    pages_are_walked();
    callbacks_end_for_good();
    tokens_outlive_their_cache();
    a_personal_access_token_never_expires();
    settings_come_in_many_types();
    errors_tell_what_the_server_said();
    errors_fit_the_standard_library();
    calls_without_exceptions();
    log_lines_and_events_are_reported();
    an_event_loop_never_waits();
    exceptions_of_callbacks_stay_on_their_side();
    a_copy_needs_room();
    a_refused_token_is_replaced();
    threads_share_a_cache();
    return 0;
}
