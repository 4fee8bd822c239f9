package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const path = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"

// worker owns one connection: one goroutine sends, one reads.
type worker struct {
	o       options
	index   int
	begin   time.Time // of the run; measuring starts at begin+warmup
	tally   *tally
	source  *source
	conn    net.Conn
	out     *bufio.Writer
	framer  *http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
	writing sync.Mutex // guards out, framer's write side
	window  int64      // connection send window, atomic
	flight  int64      // calls in flight, atomic
	places  chan struct{}
	// A call's scheduled time in µs since begin, by stream; far fewer calls are in flight than the ring holds.
	started [1 << 16]int64
	failed  chan error
}

func newWorker(o options, messages [][]byte, index int, begin time.Time, t *tally) *worker {
	return &worker{o: o, index: index, begin: begin, tally: t, source: newSource(o, messages, index),
		window: 65535, places: make(chan struct{}, o.streams), failed: make(chan error, 1)}
}

func (w *worker) headers(n int) []byte {
	w.block.Reset()
	timeout := "1000m"
	if w.o.timeout {
		timeout = fmt.Sprintf("%du", 900000+n%100000)
	}
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", w.o.authority},
		{"te", "trailers"}, {"content-type", "application/grpc"}, {"grpc-timeout", timeout}} {
		_ = w.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if w.o.traceparent {
		sampled := 1
		if w.o.unsampled {
			sampled = 0
		}
		trace := fmt.Sprintf("00-%016x%016x-%016x-%02x", w.index+1, n, n*7+1, sampled)
		_ = w.encoder.WriteField(hpack.HeaderField{Name: "traceparent", Value: trace})
	}
	return w.block.Bytes()
}

func (w *worker) run() error {
	conn, err := net.Dial("tcp", w.o.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	w.conn = conn
	w.out = bufio.NewWriterSize(conn, 64<<10)
	w.encoder = hpack.NewEncoder(&w.block)
	if _, err := w.out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	w.framer = http2.NewFramer(w.out, bufio.NewReaderSize(conn, 256<<10))
	_ = w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	_ = w.framer.WriteWindowUpdate(0, 1<<30)
	_ = w.out.Flush()
	go func() { w.failed <- w.read() }()
	err = w.send()
	for i := 0; i < 400 && atomic.LoadInt64(&w.flight) > 0; i++ {
		time.Sleep(5 * time.Millisecond)
	}
	if left := atomic.LoadInt64(&w.flight); err == nil && left > 0 {
		err = fmt.Errorf("%d calls were never answered", left)
	}
	return err
}

func (w *worker) flush() {
	w.writing.Lock()
	_ = w.out.Flush()
	w.writing.Unlock()
}

// send schedules calls until the time is over; 100 ms of answers are awaited by run.
func (w *worker) send() error {
	stop := w.begin.Add(w.o.warmup + w.o.duration)
	var every time.Duration
	if w.o.rate > 0 {
		every = time.Duration(float64(time.Second) * float64(w.o.conns) / w.o.rate)
	}
	if every > 0 {
		sleepPrecisely()
	}
	due := time.Now().Add(every * time.Duration(w.index) / time.Duration(w.o.conns))
	stream := uint32(1)
	most := (w.o.calls + w.o.conns - 1) / w.o.conns // 0: no end by number
	for n := 0; ; n++ {
		if (every > 0 || n&31 == 0) && time.Now().After(stop) || most > 0 && n == most {
			w.flush()
			return nil
		}
		if every > 0 {
			due = due.Add(every)
			if time.Until(due) > 0 {
				w.flush()
				sleepUntil(due)
			}
		}
		select {
		case w.places <- struct{}{}:
		default:
			w.flush()
			select {
			case w.places <- struct{}{}:
			case err := <-w.failed:
				return err
			}
		}
		payload := w.source.next()
		for atomic.LoadInt64(&w.window) < int64(len(payload)) {
			w.flush()
			select {
			case err := <-w.failed:
				return err
			case <-time.After(50 * time.Microsecond):
			}
		}
		atomic.AddInt64(&w.window, -int64(len(payload)))
		atomic.AddInt64(&w.flight, 1)
		at := time.Now()
		if every > 0 {
			at = due
		}
		atomic.StoreInt64(&w.started[(stream>>1)&0xffff], at.Sub(w.begin).Microseconds())
		w.writing.Lock()
		_ = w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.headers(n), EndHeaders: true})
		err := w.framer.WriteData(stream, true, payload)
		w.writing.Unlock()
		if err != nil {
			return err
		}
		stream += 2
	}
}

// finish counts one ended call, unless it began in the warm-up.
func (w *worker) finish(stream uint32, count *uint64) {
	started := atomic.LoadInt64(&w.started[(stream>>1)&0xffff])
	if started >= w.o.warmup.Microseconds() {
		*count++
		w.tally.latenciesUS = append(w.tally.latenciesUS, uint32(time.Since(w.begin).Microseconds()-started))
	}
	w.tally.answered++
	atomic.AddInt64(&w.flight, -1)
	<-w.places
}
