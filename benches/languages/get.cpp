// Nanoseconds for a variable, a clock and a cached token: see run.py.
#include <amp_token.hpp>
#include <chrono>
#include <iostream>

using clock_type = std::chrono::steady_clock;
static std::string variable = "value";
static volatile char used;

template <class Work> static double nanoseconds(Work work) {
    const int times = 1000000;
    const auto start = clock_type::now();
    for (int i = 0; i < times; i++)
        work();
    return std::chrono::duration<double, std::nano>(clock_type::now() - start).count() / times;
}

int main() {
    amp::config config;
    config.load();
    const amp::token_cache cache(config);
    cache.get();
    const double read = nanoseconds([] { used = *static_cast<volatile char *>(&variable[0]); });
    const double clock = nanoseconds([] { used = static_cast<char>(clock_type::now().time_since_epoch().count()); });
    const double get = nanoseconds([&cache] { const amp::token token = cache.get(); used = token.c_str()[0]; });
    std::cout << read << ' ' << clock << ' ' << get << '\n';
}
