// Publishes content items in parallel, with a pool of worker threads that share one token cache.
//
//     c++ -std=c++11 publish.cpp -o publish $(pkg-config --cflags --libs amp_token) -pthread
//     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./publish [WORKERS] < ids
//
// Reads the ids of content items from standard input, one per line, and prints the reason for each that
// failed. WORKERS is 8 by default: Amplience allows 100 publish requests per minute, and more workers only
// reach that limit sooner. Exit status: 0 if all items were published, 1 if some were not, 2 if the program
// could not start.
//
// The library refreshes the token, replaces a rejected one, and retries requests where that is safe. It does
// not retry a POST after a 429, so the worker does.

#include <algorithm>
#include <amp_token.hpp>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <exception>
#include <functional>
#include <iostream>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

const int max_attempts = 6;

/// The queue of ids, and the results. Any thread may call the member functions.
class work {
  public:
    explicit work(std::deque<std::string> ids) : ids_(std::move(ids)) {}

    /// Takes the next id from the queue. Returns false if the queue is empty.
    bool next(std::string &id) {
        const std::lock_guard<std::mutex> guard(lock_);
        if (ids_.empty())
            return false;
        id = std::move(ids_.front());
        ids_.pop_front();
        return true;
    }

    /// Counts an item that was published.
    void done() { ++done_; }

    /// Counts an item that was not published, and prints the reason.
    void failed(const std::string &id, const std::string &reason) {
        const std::lock_guard<std::mutex> guard(lock_);
        std::cerr << id << ": " << reason << '\n';
        ++failed_;
    }

    int published() const { return done_; }
    int not_published() const { return failed_; }

  private:
    std::mutex lock_;
    std::deque<std::string> ids_;
    std::atomic<int> done_{0};
    std::atomic<int> failed_{0};
};

/// How long to wait before the next attempt: Retry-After, and otherwise twice as long as the last time.
std::chrono::milliseconds backoff(const amp::response &response, int attempt) {
    const char *retry_after = response.header("Retry-After");
    const long seconds = retry_after ? std::strtol(retry_after, nullptr, 10) : 0;
    if (seconds > 0)
        return std::chrono::seconds((std::min)(seconds, 60L));
    return std::chrono::milliseconds(50 << attempt);
}

/// Publishes one item. Returns an empty string, or the reason why it was not published.
std::string publish(const amp::token_cache &cache, const std::string &id) {
    if (id.find_first_not_of("0123456789abcdefABCDEF-") != std::string::npos)
        return "this is no id"; // other characters could change the meaning of the path
    for (int attempt = 1;; ++attempt) {
        const amp::response response = cache.request("POST", "/v2/content/content-items/" + id + "/publish");
        if (response.ok())
            return std::string();
        if (response.status() != 429 || attempt == max_attempts)
            return "HTTP " + std::to_string(response.status()) + " " + response.body();
        std::this_thread::sleep_for(backoff(response, attempt));
    }
}

/// The worker threads run this until the queue is empty.
void run(const amp::token_cache &cache, work &work) {
    std::string id;
    while (work.next(id)) {
        try {
            const std::string reason = publish(cache, id);
            if (reason.empty())
                work.done();
            else
                work.failed(id, reason);
        } catch (const std::exception &error) { // amp::error too: there was no token or no response
            work.failed(id, error.what());
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
        cache.get(); // rejected credentials are reported once, not by every worker
        work work(std::move(ids));
        std::vector<std::thread> pool;
        pool.reserve(static_cast<std::size_t>(workers));
        for (long i = 0; i < workers; ++i) {
            try {
                pool.emplace_back(run, std::cref(cache), std::ref(work));
            } catch (const std::system_error &) { // no more threads: those that run do all the work
                if (pool.empty())
                    throw;
                break;
            }
        }
        for (std::thread &worker : pool)
            worker.join();
        std::cout << work.published() << " published, " << work.not_published() << " not; "
                  << cache.statistic("refreshes") << " token(s)\n";
        return work.not_published() == 0 ? 0 : 1;
    } catch (const amp::error &error) {
        std::cerr << error.status_name() << ": " << error.what() << '\n';
        return 2;
    } catch (const std::exception &error) { // std::bad_alloc
        std::cerr << error.what() << '\n';
        return 2;
    }
}
