// Prints an access token.
//
//     c++ -std=c++11 get_token.cpp -o get_token $(pkg-config --cflags --libs amp_token)
//     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./get_token
//
// Exit status: 0, or the tens of the failure's amp_status: 1 arguments and configuration, 2 credentials,
// 3 network, 4 server, 5 reply, 6 this machine.

#include <amp_token.hpp>
#include <iostream>

int main() {
    try {
        amp::config config;
        config.load();
        std::cout << amp::get_token(config).c_str() << '\n';
        return 0;
    } catch (const amp::error &failure) {
        std::cerr << failure.status_name() << ": " << failure.what() << '\n';
        return failure.status() / 10;
    }
}
