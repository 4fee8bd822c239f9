package main

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"strings"
)

// field appends a length-delimited protobuf field.
func field(out []byte, number int, value []byte) []byte {
	out = append(out, byte(number<<3|2))
	out = binary.AppendUvarint(out, uint64(len(value)))
	return append(out, value...)
}

// message is a length-prefixed RateLimitRequest (rls.proto: domain 1, descriptors 2; entry: key 1, value 2).
func message(domain string, descriptors []string, value string) []byte {
	body := field(nil, 1, []byte(domain))
	for _, d := range descriptors {
		var entries []byte
		for _, e := range strings.Split(d, ",") {
			key, val, _ := strings.Cut(e, "=")
			val = strings.ReplaceAll(val, "{}", value)
			entries = field(entries, 1, field(field(nil, 1, []byte(key)), 2, []byte(val)))
		}
		body = field(body, 2, entries)
	}
	out := make([]byte, 5, 5+len(body))
	binary.BigEndian.PutUint32(out[1:], uint32(len(body)))
	return append(out, body...)
}

// prepare makes the messages that all connections choose from; none where every value is new.
func prepare(o options) [][]byte {
	if o.fresh {
		return nil
	}
	prepared := make([][]byte, o.keys)
	for i := range prepared {
		prepared[i] = message(o.domain, o.descriptors, fmt.Sprintf("u%07d", i))
	}
	return prepared
}

// source hands out messages: of the prepared ones by Zipf or uniform choice, or fresh ones for ever.
type source struct {
	o        options
	prepared [][]byte
	random   *rand.Rand
	zipf     *rand.Zipf
	worker   int
	count    int
}

func newSource(o options, prepared [][]byte, worker int) *source {
	s := &source{o: o, prepared: prepared, worker: worker, random: rand.New(rand.NewSource(o.seed + int64(worker)))}
	if !o.fresh && o.zipf > 1 {
		s.zipf = rand.NewZipf(s.random, o.zipf, 1, uint64(o.keys-1))
	}
	return s
}

func (s *source) next() []byte {
	s.count++
	switch {
	case s.o.fresh:
		return message(s.o.domain, s.o.descriptors, fmt.Sprintf("n%02d-%09d", s.worker, s.count))
	case s.zipf != nil:
		return s.prepared[s.zipf.Uint64()]
	default:
		return s.prepared[s.random.Intn(len(s.prepared))]
	}
}
