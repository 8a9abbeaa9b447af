// The conformance runner of Go: ../README.md describes the commands and answers. It calls C itself, because the recipe
// has no more than a program needs.
package main

/*
#cgo LDFLAGS: -lamp_token
#include <amp_token.h>
#include <stdlib.h>
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"
)

var (
	cache   *C.amp_token_cache
	token   *C.amp_token
	started chan result
)

type result struct {
	status C.amp_status
	token  *C.amp_token
	err    *C.amp_error
}

func failed(status C.amp_status, err *C.amp_error) string {
	defer C.amp_error_free(err)
	code := "-"
	if C.amp_error_oauth_code(err) != nil {
		code = C.GoString(C.amp_error_oauth_code(err))
	}
	name := C.GoString(C.amp_status_name(C.int32_t(status)))
	return fmt.Sprint(name, " ", C.amp_error_http_status(err), " ", bool(C.amp_error_is_retryable(err)), " ",
		int64(C.amp_error_retry_after_ms(err)), " ", code)
}

func (r result) answer() string {
	if r.status != C.AMP_OK {
		return failed(r.status, r.err)
	}
	C.amp_token_free(token)
	token = r.token
	return "AMP_OK " + C.GoString(C.amp_token_value(token))
}

func get() (r result) {
	r.status = C.amp_token_cache_get(cache, &r.token, &r.err)
	return r
}

func getFor(milliseconds int64) (r result) {
	r.status = C.amp_token_cache_get_for(cache, C.int64_t(milliseconds), &r.token, &r.err)
	return r
}

func open(settings []string) string {
	var err *C.amp_error
	config := C.amp_config_new()
	defer C.amp_config_free(config)
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		cname, cvalue := C.CString(name), C.CString(value)
		status := C.amp_config_set(config, cname, cvalue, &err)
		C.free(unsafe.Pointer(cname))
		C.free(unsafe.Pointer(cvalue))
		if status != C.AMP_OK {
			return failed(status, err)
		}
	}
	status := C.amp_config_load(config, &err)
	if status == C.AMP_OK {
		status = C.amp_token_cache_new(config, &cache, &err)
	}
	if status != C.AMP_OK {
		return failed(status, err)
	}
	return "AMP_OK"
}

func inGoroutines(count int) string {
	results := make(chan result)
	for i := 0; i < count; i++ {
		go func() { results <- get() }()
	}
	distinct, failure := map[string]bool{}, ""
	for i := 0; i < count; i++ {
		answer := (<-results).answer()
		distinct[answer] = true
		if !strings.HasPrefix(answer, "AMP_OK ") {
			failure = answer
		}
	}
	if failure != "" {
		return failure
	}
	return fmt.Sprint("AMP_OK ", len(distinct))
}

func run(command, rest string) string {
	switch command {
	case "open":
		return open(strings.Fields(rest))
	case "get":
		if milliseconds, err := strconv.ParseInt(rest, 10, 64); err == nil {
			return getFor(milliseconds).answer()
		}
		return get().answer()
	case "threads":
		count, _ := strconv.Atoi(rest)
		return inGoroutines(count)
	case "start":
		started = make(chan result, 1)
		go func() { started <- get() }()
		return "AMP_OK"
	case "join":
		r := <-started
		started = nil
		return r.answer()
	case "token":
		return "AMP_OK " + C.GoString(C.amp_token_value(token))
	case "expires_in":
		return fmt.Sprint(int64(C.amp_token_expires_in(token)))
	case "report":
		status, body, _ := strings.Cut(rest, " ")
		number, _ := strconv.Atoi(status)
		text := C.CString(body)
		defer C.free(unsafe.Pointer(text))
		return fmt.Sprint(bool(C.amp_token_cache_report(cache, token, C.int32_t(number), unsafe.Pointer(text), C.size_t(len(body)))))
	case "invalidate":
		C.amp_token_cache_invalidate(cache, token)
		return "AMP_OK"
	case "stat":
		name := C.CString(rest)
		defer C.free(unsafe.Pointer(name))
		return fmt.Sprint(int64(C.amp_token_cache_stat(cache, name)))
	case "close":
		if started == nil { // a cache must not be freed while it is in use
			C.amp_token_cache_free(cache)
			cache = nil
			return "AMP_OK"
		}
	}
	return "unsupported" // Go cannot fork
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		fmt.Println(run(command, rest))
	}
}
