// The conformance runner of the C++ interface: ../README.md describes the commands and answers.
#include <amp_token.hpp>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

static amp::token_cache cache;
// The last token that a command returned.
static amp::token last;

static std::string failed(const amp::error &error) {
    std::ostringstream answer;
    answer << error.status_name() << ' ' << error.http_status() << (error.retryable() ? " true " : " false ")
           << error.retry_after().count() << ' ' << (error.oauth_code() ? error.oauth_code() : "-");
    return answer.str();
}

static std::string attempt(const std::function<std::string()> &call) {
    try {
        return call();
    } catch (const amp::error &error) {
        return failed(error);
    }
}

static std::string keep(amp::token token) {
    last = std::move(token);
    return "AMP_OK " + last.value();
}

static std::string open_cache(std::istringstream &settings) {
    amp::config config;
    for (std::string setting; settings >> setting;) {
        const std::size_t split = setting.find('=');
        config.set(setting.substr(0, split).c_str(), setting.substr(split + 1).c_str());
    }
    config.load();
    cache = amp::token_cache(config);
    return "AMP_OK";
}

static std::string get_in_threads(std::size_t count) {
    std::vector<std::string> answers(count);
    std::vector<std::thread> threads;
    for (std::string &answer : answers)
        threads.emplace_back([&answer] { answer = attempt([] { return "AMP_OK " + cache.get().value(); }); });
    for (std::thread &thread : threads)
        thread.join();
    for (const std::string &answer : answers)
        if (answer.compare(0, 7, "AMP_OK ") != 0)
            return answer;
    return "AMP_OK " + std::to_string(std::set<std::string>(answers.begin(), answers.end()).size());
}

static std::string fork_and_get() {
    if (const pid_t child = fork()) {
        waitpid(child, nullptr, 0);
        return ""; // The child answers.
    }
    std::cout << attempt([] { return keep(cache.get()); }) << std::endl;
    _exit(0);
}

int main() {
    struct {
        std::thread thread;
        amp::token token;
        amp::error error;
    } started;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string command, answer;
        long long number = 0;
        words >> command;
        if (command == "open")
            answer = attempt([&] { return open_cache(words); });
        else if (command == "get" && words >> number)
            answer = attempt([&] { return keep(cache.get_for(std::chrono::milliseconds(number))); });
        else if (command == "get")
            answer = attempt([] { return keep(cache.get()); });
        else if (command == "threads" && words >> number)
            answer = get_in_threads(static_cast<std::size_t>(number));
        else if (command == "fork")
            answer = fork_and_get();
        else if (command == "start") {
            started.thread = std::thread([&started] { started.token = cache.get(started.error); });
            answer = "AMP_OK";
        } else if (command == "join") {
            started.thread.join();
            answer = started.token ? keep(std::move(started.token)) : failed(started.error);
        } else if (command == "token")
            answer = "AMP_OK " + last.value();
        else if (command == "expires_in")
            answer = std::to_string(last.expires_in().count());
        else if (command == "report" && words >> number) {
            std::string body;
            std::getline(words >> std::ws, body);
            answer = cache.report(last, static_cast<int>(number), body) ? "true" : "false";
        } else if (command == "invalidate") {
            cache.invalidate(last);
            answer = "AMP_OK";
        } else if (command == "stat") {
            words >> command;
            answer = std::to_string(cache.statistic(command.c_str()));
        } else if (command == "close" && !started.thread.joinable()) { // It must not be destroyed while it is in use.
            cache = amp::token_cache();
            answer = "AMP_OK";
        } else
            answer = "unsupported";
        if (!answer.empty())
            std::cout << answer << std::endl;
    }
    if (started.thread.joinable())
        std::_Exit(0);
}
