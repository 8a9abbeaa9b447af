// Prints an access token.
//
//     c++ -std=c++11 get_token.cpp -o get_token $(pkg-config --cflags --libs amp_token)
//     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./get_token
//
// Exit status, as that of the command amp-token: 0 success, 1 internal error, 2 settings, 3 credentials,
// 4 network, 5 server, 6 local I/O.

#include <amp_token.hpp>
#include <exception>
#include <iostream>

namespace {

/// Codes may be added to a group (the tens), so an unknown code counts as the others of its group.
int exit_status(amp_status status) {
    switch (static_cast<int>(status) / 10) {
    case 1: // AMP_INVALID_ARGUMENT, AMP_CONFIG
        return 2;
    case 2: // AMP_NO_CREDENTIALS, AMP_CREDENTIALS_REJECTED
        return 3;
    case 3: // AMP_RESOLVE, AMP_CONNECT, AMP_TLS, AMP_PROXY, AMP_TIMEOUT
        return 4;
    case 4: // AMP_RATE_LIMITED, AMP_SERVER
    case 5: // AMP_PROTOCOL
        return 5;
    default: // AMP_INTERNAL is a bug in the library
        return status == AMP_IO ? 6 : 1;
    }
}

} // namespace

int main() {
    try {
        amp::config config;
        config.load();
        const amp::token token = amp::get_token(config);
        if (std::cout << token.c_str() << std::endl)
            return 0;
        std::cerr << "cannot write the token to standard output\n";
        return 6;
    } catch (const amp::error &error) {
        std::cerr << error.status_name() << ": " << error.what() << '\n';
        return exit_status(error.status());
    } catch (const std::exception &error) { // std::bad_alloc
        std::cerr << error.what() << '\n';
        return 1;
    }
}
