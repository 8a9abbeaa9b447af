// Gets a token in a loop that must not wait for it, as an event loop does. (C++17)
//
//     c++ -std=c++17 event_loop.cpp -o event_loop $(pkg-config --cflags --libs amp_token)
//     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./event_loop
//
// Prints the log lines, and how the Authorization header begins. Exit status: 0, or 1 after a failure.

#include <amp_token.hpp>
#include <chrono>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>

namespace {

/// Asks for a token again and again. A real loop sets a timer instead of sleeping, and does other work meanwhile.
amp::token wait_for_token(const amp::token_cache &cache) {
    using namespace std::chrono_literals;
    const auto end = std::chrono::steady_clock::now() + 30s;
    for (;;) {
        amp::error failure;
        if (amp::token token = cache.try_get(failure))
            return token;
        if (failure.status() != AMP_PENDING || std::chrono::steady_clock::now() > end)
            throw failure;
        std::this_thread::sleep_for(failure.retry_after());
    }
}

} // namespace

int main() {
    try {
        amp::config config;
        config.load().set("log_level", std::string_view("info")).queue_log_lines(100);
        const amp::token_cache cache(config);
        const amp::token token = wait_for_token(cache);
        std::int32_t level = 0;
        for (std::string line; config.next_log_line(level, line);)
            std::cout << line << std::endl;
        const std::string_view header = token.authorization_view();
        std::cout << header.substr(0, 10) << "… for " << token.expires_in().count() << " s" << std::endl;
        return 0;
    } catch (const amp::error &error) {
        std::cerr << error.code() << ' ' << error.what() << '\n';
        return 1;
    }
}
