package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// options are what the verifier is asked to do. Words without the prefix are
// somebody else's: the kernel's command line is full of them.
type options struct {
	disk    string
	area    int64         // bytes from the start of the disk; zero: all of it
	largest int           // bytes of one request
	rate    float64       // requests a second on average; zero: as many as it can
	wave    time.Duration // the load swells and ebbs in this time; zero: it is even
	workers int           // requests at a time
	seed    uint64        // zero: another one each time
	guest   uint64        // zero: from the machine's UUID
	adopt   bool          // blocks of another guest are no error (a cloned disk)
	reads   int           // percent of requests
}

const optionPrefix = "drystone."

func defaults() options {
	return options{
		disk: "/dev/vda", area: 128 << 20, largest: 64 << 10,
		rate: 200, wave: 90 * time.Second, workers: 4, reads: 50,
	}
}

// parse reads words like drystone.rate=100 into o.
func (o *options) parse(words []string) error {
	var errs []error
	for _, word := range words {
		word, ours := strings.CutPrefix(word, optionPrefix)
		if !ours {
			continue
		}
		key, value, _ := strings.Cut(word, "=")
		if err := o.set(key, value); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", optionPrefix, key, err))
		}
	}
	return errors.Join(append(errs, o.validate())...)
}

func (o *options) set(key, value string) (err error) {
	switch key {
	case "disk":
		o.disk = value
	case "area":
		o.area, err = parseSize(value)
	case "size":
		var n int64
		n, err = parseSize(value)
		o.largest = int(n)
	case "rate":
		o.rate, err = strconv.ParseFloat(value, 64)
	case "wave":
		o.wave, err = time.ParseDuration(value)
	case "workers":
		o.workers, err = strconv.Atoi(value)
	case "seed":
		o.seed, err = strconv.ParseUint(value, 0, 64)
	case "guest":
		o.guest, err = strconv.ParseUint(value, 0, 64)
	case "adopt":
		o.adopt, err = strconv.ParseBool(value)
	case "reads":
		o.reads, err = strconv.Atoi(value)
	default:
		return errors.New("there is no such option")
	}
	return err
}

func (o *options) validate() error {
	var errs []error
	if o.largest < sectorSize || o.largest > 4<<20 || o.largest%sectorSize != 0 {
		errs = append(errs, fmt.Errorf("a request has %d bytes to 4 MiB, not %d", sectorSize, o.largest))
	}
	if o.area < 0 || o.area%sectorSize != 0 {
		errs = append(errs, fmt.Errorf("an area of %d bytes is not whole sectors", o.area))
	}
	if o.workers < 1 || o.workers > 256 {
		errs = append(errs, fmt.Errorf("there are 1 to 256 workers, not %d", o.workers))
	}
	if !(o.rate >= 0) || o.wave < 0 {
		errs = append(errs, errors.New("a rate and a wave are not negative"))
	}
	if o.reads < 0 || o.reads > 100 {
		errs = append(errs, fmt.Errorf("%d percent of requests cannot be reads", o.reads))
	}
	return errors.Join(errs...)
}

// parseSize reads bytes with an optional K, M or G.
func parseSize(s string) (int64, error) {
	shift := 0
	if n := len(s); n > 0 {
		switch s[n-1] {
		case 'K':
			shift = 10
		case 'M':
			shift = 20
		case 'G':
			shift = 30
		}
	}
	digits := s
	if shift > 0 {
		digits = s[:len(s)-1]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}
