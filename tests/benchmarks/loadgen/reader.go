package main

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// read takes answers until the connection ends.
func (w *worker) read() error {
	status := ""
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "grpc-status" {
			status = f.Value
		}
	})
	codes := map[uint32]byte{}
	received := 0
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				w.control(func() { _ = w.framer.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				data := f.Data
				w.control(func() { _ = w.framer.WritePing(true, data) })
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				atomic.AddInt64(&w.window, int64(f.Increment))
			}
		case *http2.DataFrame:
			// Length prefix 5 bytes, then overall_code as field 1: 0x08, code.
			if d := f.Data(); len(d) >= 7 && d[5] == 8 {
				codes[f.StreamID] = d[6]
			}
			if received += len(f.Data()); received > 1<<19 {
				n := uint32(received)
				w.control(func() { _ = w.framer.WriteWindowUpdate(0, n) })
				received = 0
			}
		case *http2.HeadersFrame:
			if _, err := decoder.Write(f.HeaderBlockFragment()); err != nil {
				return err
			}
			if f.StreamEnded() {
				w.finish(f.StreamID, w.verdict(status, codes[f.StreamID]))
				delete(codes, f.StreamID)
				status = ""
			}
		case *http2.RSTStreamFrame:
			delete(codes, f.StreamID)
			w.finish(f.StreamID, &w.tally.Resets)
		case *http2.GoAwayFrame:
			return fmt.Errorf("GOAWAY %v %q", f.ErrCode, f.DebugData())
		}
	}
}

func (w *worker) verdict(status string, code byte) *uint64 {
	switch {
	case status != "0":
		return &w.tally.GRPCErrors
	case code == 1:
		return &w.tally.OK
	case code == 2:
		return &w.tally.Over
	default:
		return &w.tally.Unknown
	}
}

// control writes a frame between the sender's.
func (w *worker) control(write func()) {
	w.writing.Lock()
	write()
	_ = w.out.Flush()
	w.writing.Unlock()
}
