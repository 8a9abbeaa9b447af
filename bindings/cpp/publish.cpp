// Publishes content items in parallel: a pool of workers that share one token cache.
//
//     c++ -std=c++11 publish.cpp -o publish $(pkg-config --cflags --libs amp_token) -pthread
//     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./publish [WORKERS] < ids
//
// Reads the ids of content items, one a line; says for each that failed why. WORKERS is 8 if not given:
// Amplience allows 100 publish requests a minute, and more workers only meet that limit sooner. Exit status:
// 0 if all were published, 1 if some were not, 2 if nothing could be begun.
//
// The library renews the token, replaces a refused one and repeats what is safe to repeat. What is left to do
// here is patience: a POST that was answered with 429 is not repeated by the library, but by its worker.

#include <algorithm>
#include <amp_token.hpp>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

const int attempts = 6;

/// Hands out lines, and takes in reports, from any thread.
class work {
  public:
    explicit work(std::deque<std::string> ids) : ids_(std::move(ids)) {}

    /// The next id; false: there are no more.
    bool next(std::string &id) {
        const std::lock_guard<std::mutex> guard(lock_);
        if (ids_.empty())
            return false;
        id = std::move(ids_.front());
        ids_.pop_front();
        return true;
    }

    /// One was published.
    void done() { ++done_; }

    /// One was not.
    void failed(const std::string &id, const std::string &why) {
        const std::lock_guard<std::mutex> guard(lock_);
        std::cerr << id << ": " << why << '\n';
        ++failed_;
    }

    int published() const { return done_; }
    int left_over() const { return failed_; }

  private:
    std::mutex lock_;
    std::deque<std::string> ids_;
    std::atomic<int> done_{0};
    std::atomic<int> failed_{0};
};

/// How long to wait before the next attempt: what the server asks for, or else longer each time.
std::chrono::milliseconds pause_after(const amp::response &response, int attempt) {
    const char *asked = response.header("Retry-After");
    const long seconds = asked ? std::strtol(asked, nullptr, 10) : 0;
    if (seconds > 0)
        return std::chrono::seconds((std::min)(seconds, 60L));
    return std::chrono::milliseconds(50 << attempt);
}

/// An empty text, or why it was not published.
std::string publish(const amp::token_cache &cache, const std::string &id) {
    if (id.find_first_not_of("0123456789abcdefABCDEF-") != std::string::npos)
        return "this is no id"; // and in a path it could mean anything
    for (int attempt = 1;; ++attempt) {
        const amp::response response = cache.request("POST", "/v2/content/content-items/" + id + "/publish");
        if (response.ok())
            return std::string();
        if (response.status() != 429 || attempt == attempts)
            return "HTTP " + std::to_string(response.status()) + " " + response.body();
        std::this_thread::sleep_for(pause_after(response, attempt));
    }
}

/// What each worker does until there is nothing left.
void run(const amp::token_cache &cache, work &work) {
    std::string id;
    while (work.next(id)) {
        try {
            const std::string why = publish(cache, id);
            if (why.empty())
                work.done();
            else
                work.failed(id, why);
        } catch (const std::exception &failure) { // amp::error too: there was no token, or no reply
            work.failed(id, failure.what());
        }
    }
}

} // namespace

int main(int argc, char **argv) {
    const long workers = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 8;
    if (argc > 2 || workers < 1 || workers > 64) {
        std::cerr << "usage: publish [WORKERS, 1 to 64] < ids\n";
        return 2;
    }
    std::deque<std::string> ids;
    for (std::string line; std::getline(std::cin, line);)
        if (!line.empty())
            ids.push_back(line);
    try {
        amp::config config;
        const amp::token_cache cache(config.load());
        cache.get(); // wrong credentials are said once, not by every worker
        work work(std::move(ids));
        std::vector<std::thread> pool;
        for (long i = 0; i < workers; ++i)
            pool.emplace_back(run, std::cref(cache), std::ref(work));
        for (std::thread &worker : pool)
            worker.join();
        std::cout << work.published() << " published, " << work.left_over() << " not; "
                  << cache.statistic("refreshes") << " token(s)\n";
        return work.left_over() == 0 ? 0 : 1;
    } catch (const amp::error &failure) {
        std::cerr << failure.status_name() << ": " << failure.what() << '\n';
        return 2;
    }
}
