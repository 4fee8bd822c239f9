// Command loadgen sends unary ShouldRateLimit calls with varied descriptors over raw HTTP/2
// and prints verdicts and latency percentiles as one line of JSON.
//
// Closed loop: every connection keeps `-streams` calls in flight. Open loop (`-rate`): calls leave on
// schedule whatever the answers do, and latency counts from the scheduled time, so a stall is not hidden.
// `-calls` ends after so many calls instead of after a time.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"
)

type options struct {
	addr, authority  string
	conns, streams   int
	calls, keys      int
	zipf             float64
	fresh            bool
	duration, warmup time.Duration
	rate             float64
	domain           string
	descriptors      []string
	traceparent      bool
	unsampled        bool
	timeout          bool
	seed             int64
}

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// tally is what one connection saw after the warm-up.
type tally struct {
	OK, Over, Unknown, GRPCErrors, Resets uint64
	answered                              uint64 // all of them, those of the warm-up included
	latenciesUS                           []uint32
}

func parse() options {
	var o options
	var descriptors list
	flag.StringVar(&o.addr, "addr", "127.0.0.1:8081", "HOST:PORT of the service, loopback only")
	flag.StringVar(&o.authority, "authority", "tidegate", ":authority header")
	flag.IntVar(&o.conns, "conns", 4, "connections")
	flag.IntVar(&o.streams, "streams", 16, "calls in flight per connection")
	flag.IntVar(&o.calls, "calls", 0, "end after so many calls, all of them counted; 0: after -duration")
	flag.IntVar(&o.keys, "keys", 10000, "distinct values")
	flag.Float64Var(&o.zipf, "zipf", 1.1, "Zipf exponent above 1; 0: uniform")
	flag.BoolVar(&o.fresh, "fresh", false, "a value never seen before in every request")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "measured time")
	flag.DurationVar(&o.warmup, "warmup", time.Second, "time before, not counted")
	flag.Float64Var(&o.rate, "rate", 0, "calls per second over all connections; 0: closed loop")
	flag.StringVar(&o.domain, "domain", "bench", "domain")
	flag.Var(&descriptors, "descriptor", "entries `k=v,k=v`, {} stands for the varied value; may be repeated (default user={})")
	flag.BoolVar(&o.traceparent, "traceparent", false, "a traceparent of its own in every request")
	flag.BoolVar(&o.unsampled, "unsampled", false, "with -traceparent: the sampled flag is not set")
	flag.BoolVar(&o.timeout, "timeout", false, "a grpc-timeout that differs from call to call (else always 1000m)")
	flag.Int64Var(&o.seed, "seed", 1, "seed of the random choices")
	flag.Parse()
	if len(descriptors) == 0 {
		descriptors = list{"user={}"}
	}
	o.descriptors = descriptors
	if o.calls > 0 {
		o.warmup, o.duration = 0, 24*time.Hour
	}
	host := o.addr[:strings.LastIndex(o.addr+":", ":")]
	if !strings.HasPrefix(host, "127.") && host != "localhost" && !strings.HasPrefix(host, "[::1]") {
		fmt.Fprintln(os.Stderr, "loadgen: loopback addresses only")
		os.Exit(2)
	}
	return o
}

func main() {
	o := parse()
	messages := prepare(o)
	if o.rate > 0 {
		spareThreads(o.conns)
	}
	tallies := make([]tally, o.conns)
	errors := make([]error, o.conns)
	begin := time.Now()
	var wait sync.WaitGroup
	for i := range tallies {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			errors[i] = newWorker(o, messages, i, begin, &tallies[i]).run()
		}(i)
	}
	wait.Wait()
	measured := o.duration
	if o.calls > 0 {
		measured = time.Since(begin)
	}
	var sum tally
	failed := 0
	for i := range tallies {
		t := &tallies[i]
		sum.OK += t.OK
		sum.Over += t.Over
		sum.Unknown += t.Unknown
		sum.GRPCErrors += t.GRPCErrors
		sum.Resets += t.Resets
		sum.answered += t.answered
		sum.latenciesUS = append(sum.latenciesUS, t.latenciesUS...)
		if errors[i] != nil {
			failed++
			fmt.Fprintln(os.Stderr, "connection", i, errors[i])
		}
	}
	sort.Slice(sum.latenciesUS, func(a, b int) bool { return sum.latenciesUS[a] < sum.latenciesUS[b] })
	at := func(q float64) float64 {
		if len(sum.latenciesUS) == 0 {
			return -1
		}
		return float64(sum.latenciesUS[int(q*float64(len(sum.latenciesUS)-1))]) / 1000
	}
	total := sum.OK + sum.Over + sum.Unknown + sum.GRPCErrors + sum.Resets
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"calls_per_s": int(float64(total) / measured.Seconds()),
		"answered":    sum.answered,
		"ok":          sum.OK, "over": sum.Over, "unknown": sum.Unknown,
		"grpc_errors": sum.GRPCErrors, "resets": sum.Resets, "failed_connections": failed,
		"p50_ms": at(.5), "p95_ms": at(.95), "p99_ms": at(.99), "p999_ms": at(.999), "max_ms": at(1),
	})
	if failed > 0 {
		os.Exit(1)
	}
}
