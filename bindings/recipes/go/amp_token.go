// Package amptoken has Amplience access tokens in Go: the C interface by cgo, which reads the header as it is.
package amptoken

/*
#cgo pkg-config: amp_token
#include <amp_token.h>
#include <stdlib.h>
*/
import "C"

import "unsafe"

// Error says why a call failed: Status is the name of the status, such as "AMP_TIMEOUT".
type Error struct {
	Status, Message string
	Retryable       bool
}

func (e *Error) Error() string { return e.Status + ": " + e.Message }

func check(status C.amp_status, failure **C.amp_error) error {
	if status == C.AMP_OK {
		return nil
	}
	defer C.amp_error_free(*failure)
	name, message := C.GoString(C.amp_status_name(C.int32_t(status))), C.GoString(C.amp_error_message(*failure))
	return &Error{name, message, bool(C.amp_error_is_retryable(*failure))}
}

// Cache has the token of one set of credentials. All goroutines may share it.
type Cache struct {
	cache *C.amp_token_cache
	calls chan struct{} // its capacity is the number of calls at once, each of which may occupy a thread
}

// New makes a cache. The settings that are not given are read from the environment. Free it with Close.
func New(settings map[string]string) (*Cache, error) {
	config, c, failure := C.amp_config_new(), &Cache{calls: make(chan struct{}, 4)}, (*C.amp_error)(nil)
	defer C.amp_config_free(config)
	for name, value := range settings {
		cname, cvalue := C.CString(name), C.CString(value)
		status := C.amp_config_set(config, cname, cvalue, &failure)
		C.free(unsafe.Pointer(cname))
		C.free(unsafe.Pointer(cvalue))
		if err := check(status, &failure); err != nil {
			return nil, err
		}
	}
	if err := check(C.amp_config_load(config, &failure), &failure); err != nil {
		return nil, err
	}
	return c, check(C.amp_token_cache_new(config, &c.cache, &failure), &failure)
}

// Token returns a valid token. Call it for each request.
func (c *Cache) Token() (string, error) {
	c.calls <- struct{}{}
	defer func() { <-c.calls }()
	var buffer [4096]byte
	var length C.size_t
	var failure *C.amp_error
	status := C.amp_token_cache_copy(c.cache, (*C.char)(unsafe.Pointer(&buffer[0])), 4096, &length, &failure)
	return string(buffer[:length]), check(status, &failure)
}

// APIURL returns the base URL of the API, for requests with the token.
func (c *Cache) APIURL() string { return C.GoString(C.amp_token_cache_api_url(c.cache)) }

// Requests returns how many token requests were sent.
func (c *Cache) Requests() int64 { return int64(C.amp_token_cache_stat(c.cache, requests)) }

// Close frees the cache, which no goroutine may use any more.
func (c *Cache) Close() { C.amp_token_cache_free(c.cache) }

var requests = C.CString("requests")
