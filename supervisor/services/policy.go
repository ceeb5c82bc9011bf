package services

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Balance is the method by which the endpoint for the next call is chosen.
type Balance string

// The values of Balance. The zero value means LeastInFlight.
const (
	LeastInFlight Balance = "least"
	RoundRobin    Balance = "round-robin"
	// Affinity sends calls with the same value of a metadata key to the same endpoint, unless that is overloaded.
	// Calls without the key use LeastInFlight.
	Affinity Balance = "affinity"
)

// Policy configures how the calls of a service are handled. The zero value means least requests in flight, with no
// bounds except those of the master.
type Policy struct {
	Balance Balance
	// Affinity is the metadata key whose value chooses the endpoint, or "" for none.
	Affinity string
	// MaxMessage bounds a message, in bytes; 0 means the relay's own bound.
	MaxMessage int
	// MaxInFlight bounds the calls in flight; 0 means no bound.
	MaxInFlight int
}

// or returns p with its unset fields taken from q.
func (p Policy) or(q Policy) Policy {
	if p.Balance == "" {
		p.Balance, p.Affinity = cmp.Or(q.Balance, LeastInFlight), q.Affinity
	}
	p.MaxMessage = cmp.Or(p.MaxMessage, q.MaxMessage)
	p.MaxInFlight = cmp.Or(p.MaxInFlight, q.MaxInFlight)
	return p
}

// maxName bounds the name of a service, in bytes.
const maxName = 255

// CheckName returns an error if name is not the full name of a gRPC service.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("service name is empty: must be one such as pkg.Service")
	case len(name) > maxName:
		return fmt.Errorf("service name of %d bytes: must be %d at most", len(name), maxName)
	case !protoreflect.FullName(name).IsValid():
		return fmt.Errorf("service name %q: must be a full name such as pkg.Service", name)
	}
	return nil
}

// infrastructure lists the prefixes of services that each endpoint has for itself, so that calls of them are not
// routed.
var infrastructure = []string{"grpc.health.", "grpc.reflection.", "grpc.channelz.", "hsu.master."}

// Infrastructure reports whether a service is about the endpoint that serves it and so cannot be routed: health,
// reflection, channelz, Ping, and the services of a master for its administrator.
func Infrastructure(name string) bool {
	return name == "proto.CoreService" || slices.ContainsFunc(infrastructure, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

// maxKey bounds a metadata key, in bytes.
const maxKey = 128

// ParsePolicy parses the form "NAME:balance=affinity,key=METADATA-KEY,max-in-flight=N,max-message=4MiB". NAME may
// be "*", and each field is optional. An error names the field.
func ParsePolicy(text string) (name string, p Policy, err error) {
	name, fields, found := strings.Cut(text, ":")
	if !found || fields == "" {
		return "", p,
			fmt.Errorf("%.100q: must be NAME:FIELD=VALUE[,FIELD=VALUE...] such as pkg.Service:balance=round-robin",
				text)
	}
	if name != "*" {
		if err := CheckName(name); err != nil {
			return "", p, err
		}
	}
	seen := make(map[string]bool)
	for field := range strings.SplitSeq(fields, ",") {
		key, value, _ := strings.Cut(field, "=")
		if seen[key] {
			return "", p, fmt.Errorf("%s: %.100q is given twice", name, key)
		}
		seen[key] = true
		if err := p.set(key, value); err != nil {
			return "", p, fmt.Errorf("%s: %w", name, err)
		}
	}
	switch {
	case p.Balance == Affinity && p.Affinity == "":
		return "", p, fmt.Errorf("%s: balance=affinity: say by which metadata key: key=NAME", name)
	case p.Balance != Affinity && p.Affinity != "":
		return "", p, fmt.Errorf("%s: key=%s: is of use with balance=affinity only", name, p.Affinity)
	}
	return name, p, nil
}

func (p *Policy) set(field, value string) (err error) {
	switch field {
	case "balance":
		switch p.Balance = Balance(value); p.Balance {
		case LeastInFlight, RoundRobin, Affinity:
		default:
			return fmt.Errorf("balance=%.100q: must be least, round-robin or affinity", value)
		}
	case "key":
		p.Affinity = value
		if value == "" || len(value) > maxKey || strings.Trim(value, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return fmt.Errorf(`key=%.100q: must be a metadata key of lower case letters, digits, "-", "_" and "."`,
				value)
		}
	case "max-in-flight":
		if p.MaxInFlight, err = strconv.Atoi(value); err != nil || p.MaxInFlight < 1 {
			return fmt.Errorf("max-in-flight=%.100q: must be a number above 0", value)
		}
	case "max-message":
		if p.MaxMessage, err = parseSize(value); err != nil {
			return fmt.Errorf("max-message=%.100q: must be a size up to 2GiB such as 4MiB", value)
		}
	default:
		return fmt.Errorf("unknown field %.100q: must be balance, key, max-in-flight or max-message", field)
	}
	return nil
}

// parseSize parses a number of bytes such as 4096, 64KiB, 4MiB or 1GiB.
func parseSize(text string) (int, error) {
	unit := 1
	for suffix, size := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if number, found := strings.CutSuffix(text, suffix); found {
			text, unit = number, size
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > math.MaxInt32/unit+1 {
		return 0, errors.New("no size")
	}
	return min(n*unit, math.MaxInt32), nil
}
