// Half of a program with two C++ runtimes: a library that sends log lines to a function object of its own. It is
// built twice, and each half must get its own lines.

#include "amp_token.hpp"

#include <cstdint>
#include <string>

extern "C" __attribute__((visibility("default"))) int NAME() {
    try {
        int lines = 0;
        const std::string text = "long enough not to be stored inside the string object";
        amp::config config;
        config.set("client_id", "id").set("client_secret", "secret");
        config.logger([&lines, text](std::int32_t, const char *line) { lines += text.size() > 32 && line[0] != '\0'; });
        config.transport([text](const amp::http_request &, amp::http_reply &reply) {
            reply.status(text.size() > 32 ? 200 : 500);
            reply.body("{\"access_token\":\"a\",\"expires_in\":300}");
        });
        const amp::token_cache cache(config);
        return cache.get().value() == "a" && lines > 0 ? 0 : 1;
    } catch (const amp::error &) {
        return 2;
    }
}

#ifdef WITH_MAIN
extern "C" int other_half();

int main() { return NAME() * 10 + other_half(); }
#endif
