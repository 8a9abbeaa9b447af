// Nanoseconds for a variable, a clock and a cached token: see ../run.py.
package main

import (
	"fmt"
	"time"

	"amptoken"
)

var (
	variable string
	used     int64
)

func nanoseconds(times int, work func() int64) float64 {
	start := time.Now()
	for i := 0; i < times; i++ {
		used += work()
	}
	return float64(time.Since(start)) / float64(times)
}

func main() {
	cache, err := amptoken.New(nil)
	if err != nil {
		panic(err)
	}
	if variable, err = cache.Token(); err != nil {
		panic(err)
	}
	read := nanoseconds(1000000, func() int64 { return int64(len(variable)) })
	clock := nanoseconds(1000000, func() int64 { return int64(time.Now().Nanosecond()) })
	get := nanoseconds(100000, func() int64 {
		token, _ := cache.Token()
		return int64(len(token))
	})
	fmt.Printf("%.1f %.1f %.1f\n", read, clock, get)
}
