// Lists the hubs that an API key has access to, in a program that is compiled without exceptions.
//
//     c++ -std=c++11 -fno-exceptions without_exceptions.cpp -o hubs $(pkg-config --cflags --libs amp_token)
//     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./hubs
//
// Each call stores its failure in an amp::error, which is false after a success. Exit status: 0, 1 after a failure,
// or 2 if the API responded with an error.

#include <amp_token.hpp>
#include <cstdio>

namespace {

int fail(const amp::error &failure) {
    std::fprintf(stderr, "%s: %s\n", failure.status_name(), failure.what());
    return 1;
}

} // namespace

int main() {
    amp::error failure;
    amp::config config;
    if (!config.load(failure))
        return fail(failure);
    const amp::token_cache cache(config, failure);
    if (failure)
        return fail(failure);
    int status = 0;
    cache.pages(
        "/v2/content/hubs",
        [&status](const amp::response &page) {
            status = page.status();
            std::printf("HTTP %d %s\n", status, page.body().c_str());
        },
        failure);
    if (failure)
        return fail(failure);
    return status == 200 ? 0 : 2;
}
