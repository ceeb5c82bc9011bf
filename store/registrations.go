package store

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/core-tools/hsu-master/store/storepb"
)

// PutRegistration writes an endpoint from outside, in place of the one of that service
// and address.
func PutRegistration(r Registration) Mutation {
	value, err := encodeRegistration(r)
	return Mutation{op: opPutRegistration, key: registrationKey(r.Service, r.Address), value: value, err: err}
}

// DeleteRegistration removes an endpoint from outside; there need not be one.
func DeleteRegistration(service, address string) Mutation {
	return Mutation{op: opDeleteRegistration, key: registrationKey(service, address), err: checkRegistration(service, address)}
}

func registrationKey(service, address string) string { return service + " " + address }

// maxRegistrationPart bounds a service's name and an address, in bytes.
const maxRegistrationPart = 512

func checkRegistration(service, address string) error {
	for what, value := range map[string]string{"service": service, "address": address} {
		switch {
		case value == "":
			return fmt.Errorf("registration: %s: required", what)
		case len(value) > maxRegistrationPart:
			return fmt.Errorf("registration: %s: %d bytes, at most %d", what, len(value), maxRegistrationPart)
		case text(value) != value || strings.Contains(value, " "):
			return fmt.Errorf("registration: %s %q: want UTF-8 without blanks", what, value)
		}
	}
	return nil
}

func encodeRegistration(r Registration) ([]byte, error) {
	if err := checkRegistration(r.Service, r.Address); err != nil {
		return nil, err
	}
	if r.TTL < 0 {
		return nil, fmt.Errorf("registration: ttl %s: want 0 or more", r.TTL)
	}
	return proto.Marshal(&pb.Registration{
		Service: r.Service, Address: r.Address, TtlNs: int64(r.TTL), Registered: stamp(r.Registered),
	})
}

func decodeRegistration(key string, value []byte) (Registration, error) {
	var m pb.Registration
	if err := proto.Unmarshal(value, &m); err != nil {
		return Registration{}, err
	}
	registered, err := readTime("registered", m.GetRegistered())
	if err := errors.Join(err, checkRegistration(m.GetService(), m.GetAddress())); err != nil {
		return Registration{}, err
	}
	if registrationKey(m.GetService(), m.GetAddress()) != key {
		return Registration{}, fmt.Errorf("record says that it is of %q at %q", m.GetService(), m.GetAddress())
	}
	if m.GetTtlNs() < 0 {
		return Registration{}, fmt.Errorf("ttl is %d", m.GetTtlNs())
	}
	return Registration{Service: m.GetService(), Address: m.GetAddress(), TTL: time.Duration(m.GetTtlNs()), Registered: registered}, nil
}
