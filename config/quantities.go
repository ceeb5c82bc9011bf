package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// duration is a time span of at least a bound.
func duration(at *time.Duration, least time.Duration) value {
	const name = "a duration such as 90s, 5m or 7d"
	in := form{name: name, json: "string", pattern: `^([0-9]+(\.[0-9]+)?(d|h|m|s|ms|us|ns))+$|^0$|\$`}
	return scalar[time.Duration]{at: at, in: in, parse: func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err != nil {
			return 0, respelled(err, s, timeWords, func(s string) bool {
				_, err := parseDuration(s)
				return err == nil
			})
		}
		if d < least {
			return 0, fmt.Errorf("must be at least %s", least)
		}
		return d, nil
	}}
}

// durationOrNone is a duration of at least a bound, or 0.
func durationOrNone(at *time.Duration, least time.Duration) value {
	base := duration(at, least).(scalar[time.Duration])
	return scalar[time.Duration]{at: at, in: base.in, parse: func(s string) (time.Duration, error) {
		if d, err := parseDuration(s); err == nil && d == 0 {
			return 0, nil
		}
		return base.parse(s)
	}}
}

func parseDuration(s string) (time.Duration, error) {
	const wrong = "must be a duration such as 90s, 5m or 7d"
	var days time.Duration
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseUint(before, 10, 32)
		switch {
		case errors.Is(err, strconv.ErrRange), err == nil && n > uint64(math.MaxInt64/day):
			return 0, errTooLong
		case err != nil:
			return 0, errors.New(wrong)
		}
		days, s = time.Duration(n)*day, after
		if s == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		in, noUnit := time.ParseDuration(s + "s")
		if noUnit == nil && days == 0 && in >= 0 && !strings.ContainsAny(s, "+-") {
			hint := s + "s for seconds"
			if in >= 1000*time.Second { // probably milliseconds
				hint += ", or " + s + "ms"
			}
			return 0, valueError{fmt.Errorf("%s: the unit is missing, write %s", wrong, hint)}
		}
		if longDuration.MatchString(s) {
			return 0, errTooLong
		}
		return 0, errors.New(wrong)
	}
	if d < 0 || strings.ContainsAny(s, "+-") {
		return 0, errors.New("must not be negative or have a sign")
	}
	if days > math.MaxInt64-d {
		return 0, errTooLong
	}
	return days + d, nil
}

var errTooLong = errors.New("is too long: at most 106751d are possible")

// longDuration matches durations that are not valid only because they are too long.
var longDuration = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|ns))+$`)

// Size is a number of bytes.
type Size int64

// sizeUnits are the units of sizes. A longer one stands before its endings.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// size is a number of bytes between a bound and the largest size of a file.
func size(at *Size, least Size) value {
	const name = "a size such as 512KiB, 10MB or 1GiB"
	in := form{name: name, json: "string", pattern: `^[0-9]+(\.[0-9]+)?([KMGT]iB|[kKMGT]?B)?$|\$`, words: []string{"0"}}
	return scalar[Size]{at: at, in: in, parse: func(s string) (Size, error) {
		v, err := parseSize(s)
		switch {
		case err != nil:
			return 0, respelled(err, s, sizeWords, func(s string) bool {
				_, err := parseSize(s)
				return err == nil
			})
		case v < least:
			return 0, fmt.Errorf("must be at least %d bytes", least)
		}
		return v, nil
	}}
}

func parseSize(s string) (Size, error) {
	wrong := errors.New("must be a size such as 512KiB, 10MB or 1GiB")
	digits, factor := s, int64(0)
	for _, unit := range sizeUnits {
		if before, found := strings.CutSuffix(s, unit.name); found {
			digits, factor = before, unit.bytes
			break
		}
	}
	if digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return 0, wrong
	}
	v, err := strconv.ParseFloat(digits, 64)
	switch {
	case factor == 0 && digits == "0":
		return 0, nil
	case factor == 0 && err == nil:
		hint := digits + "B for bytes"
		if v < 1<<16 { // probably MiB
			hint += ", or " + digits + "MiB"
		}
		return 0, valueError{fmt.Errorf("%w: the unit is missing, write %s", wrong, hint)}
	case errors.Is(err, strconv.ErrRange):
		return 0, errTooLarge
	case err != nil:
		return 0, wrong
	}
	if whole, err := strconv.ParseInt(digits, 10, 64); err == nil {
		if whole > math.MaxInt64/factor {
			return 0, errTooLarge
		}
		return Size(whole * factor), nil
	}
	if v*float64(factor) >= math.MaxInt64 {
		return 0, errTooLarge
	}
	return Size(v * float64(factor)), nil
}

var errTooLarge = errors.New("is too large: at most 8388607TiB are possible")

// timeWords and sizeWords are units in other spellings, in lower case, and how a file has them.
var (
	timeWords = map[string]string{
		"s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
		"m": "m", "min": "m", "mins": "m", "minute": "m", "minutes": "m",
		"h": "h", "hr": "h", "hrs": "h", "hour": "h", "hours": "h", "d": "d", "day": "d", "days": "d",
		"ms": "ms", "msec": "ms", "millisecond": "ms", "milliseconds": "ms",
	}
	sizeWords = map[string]string{
		"b": "B", "byte": "B", "bytes": "B",
		"k": "KiB", "ki": "KiB", "kib": "KiB", "kb": "kB", "m": "MiB", "mi": "MiB", "mib": "MiB", "mb": "MB",
		"g": "GiB", "gi": "GiB", "gib": "GiB", "gb": "GB", "t": "TiB", "ti": "TiB", "tib": "TiB", "tb": "TB",
	}
)

// decimalPoint returns a number with a point in place of its comma. A comma before three digits may mean thousands.
func decimalPoint(text string) string {
	before, after, _ := strings.Cut(text, ",")
	if n := len(after) - len(strings.TrimLeft(after, "0123456789")); n == 0 || n == 3 {
		return text
	}
	return before + "." + after
}

// respelled returns err, with what to write if the text is a number with a unit in another spelling, such as 30 seconds
// or 512m.
func respelled(err error, text string, words map[string]string, valid func(string) bool) error {
	lower := decimalPoint(strings.ToLower(strings.TrimSpace(text)))
	digits := strings.TrimRight(lower, "abcdefghijklmnopqrstuvwxyz")
	name, number := lower[len(digits):], strings.TrimSpace(digits)
	other := number + words[name]
	weeks, notNumber := strconv.ParseUint(number, 10, 16)
	switch {
	case notNumber == nil && (name == "w" || name == "week" || name == "weeks"):
		other = fmt.Sprintf("%dd", 7*weeks)
	case strings.ContainsAny(number, " abcdefghijklmnopqrstuvwxyz"): // such as 1h 30m
		other = strings.ReplaceAll(lower, " ", "")
	}
	if other == number || other == text || !valid(other) {
		return err
	}
	return valueError{fmt.Errorf("%w: write %s", err, other)}
}
