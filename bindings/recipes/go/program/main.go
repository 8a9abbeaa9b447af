// Goroutines, a request and an error.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"amptoken"
)

func main() {
	cache, err := amptoken.New(map[string]string{"timeout_ms": "10000"})
	if err != nil {
		panic(err)
	}
	defer cache.Close()
	var group sync.WaitGroup
	var tokens sync.Map
	for i := 0; i < 1000; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			token, err := cache.Token()
			tokens.Store(fmt.Sprint(token, err), true)
		}()
	}
	group.Wait()
	count := 0
	tokens.Range(func(any, any) bool { count++; return true })
	fmt.Printf("1000 goroutines: %d token, %d request\n", count, cache.Requests())

	token, err := cache.Token()
	if err != nil {
		panic(err)
	}
	request, _ := http.NewRequest("GET", cache.APIURL()+"/v2/content/hubs", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	response.Body.Close()
	fmt.Println("GET /v2/content/hubs:", response.StatusCode)

	wrong, err := amptoken.New(map[string]string{"client_secret": "wrong"})
	if err == nil {
		_, err = wrong.Token()
	}
	var failure *amptoken.Error
	if errors.As(err, &failure) {
		fmt.Printf("%s: %s\n", failure.Status, failure.Message)
	}
}
