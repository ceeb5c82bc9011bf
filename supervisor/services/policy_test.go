package services

import (
	"strings"
	"testing"
)

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]Policy{
		"pkg.S:balance=round-robin":               {Balance: RoundRobin},
		"pkg.S:balance=least,max-in-flight=7":     {Balance: LeastInFlight, MaxInFlight: 7},
		"pkg.S:balance=affinity,key=x-session-id": {Balance: Affinity, Affinity: "x-session-id"},
		"*:key=k,balance=affinity,max-in-flight=1,max-message=64KiB": {
			Balance: Affinity, Affinity: "k", MaxInFlight: 1, MaxMessage: 65536,
		},
		"pkg.S:max-message=1":    {MaxMessage: 1},
		"pkg.S:max-message=4MiB": {MaxMessage: 4 << 20},
		"pkg.S:max-message=2GiB": {MaxMessage: 1<<31 - 1},
	} {
		name, _, _ := strings.Cut(text, ":")
		if got, p, err := ParsePolicy(text); err != nil || got != name || p != want {
			t.Errorf("%s: %s %+v, %v, want %+v", text, got, p, err, want)
		}
	}
	for text, field := range map[string]string{
		"":                                   "NAME:FIELD=VALUE",
		"pkg.S":                              "NAME:FIELD=VALUE",
		"pkg.S:":                             "NAME:FIELD=VALUE",
		":balance=least":                     "service name is empty",
		"a/b:balance=least":                  "service name",
		"pkg..S:balance=least":               "service name",
		strings.Repeat("x", 256) + ":key=k":  "service name of 256 bytes",
		"pkg.S:balance=":                     "balance=",
		"pkg.S:balance=random":               "balance=",
		"pkg.S:balance=affinity":             "key=NAME",
		"pkg.S:key=k":                        "key=k",
		"pkg.S:balance=least,key=k":          "key=k",
		"pkg.S:balance=affinity,key=X":       "key=",
		"pkg.S:balance=affinity,key=:path":   "key=",
		"pkg.S:balance=affinity,key=":        "key=",
		"pkg.S:max-in-flight=0":              "max-in-flight=",
		"pkg.S:max-in-flight=many":           "max-in-flight=",
		"pkg.S:max-message=0":                "max-message=",
		"pkg.S:max-message=3GiB":             "max-message=",
		"pkg.S:max-message=9999999999999MiB": "max-message=",
		"pkg.S:max-message=4MB":              "max-message=",
		"pkg.S:speed=high":                   `unknown field "speed"`,
		"pkg.S:balance=least,":               `unknown field ""`,
		"pkg.S:balance=least,balance=least":  "given twice",
		"pkg.S:balance=\x1b[2J":              `\x1b`,
	} {
		if _, _, err := ParsePolicy(text); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want it to name %s", text, err, field)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, text := range []string{
		"pkg.S:balance=affinity,key=k,max-in-flight=1,max-message=4MiB", "*:balance=least", "", ":", "a:b",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		if name != "*" && CheckName(name) != nil || p.MaxInFlight < 0 || p.MaxMessage < 0 ||
			(p.Balance == Affinity) != (p.Affinity != "") {
			t.Errorf("%q: %q %+v", text, name, p)
		}
	})
}

func TestPolicyOfAService(t *testing.T) {
	all := Policy{Balance: Affinity, Affinity: "k", MaxInFlight: 100}
	for name, test := range map[string]struct{ own, all, want Policy }{
		"nothing is said": {Policy{}, Policy{}, Policy{Balance: LeastInFlight}},
		"of all":          {Policy{}, all, all},
		"of it":           {all, Policy{}, all},
		"what it leaves open": {
			Policy{MaxMessage: 7}, all, Policy{Balance: Affinity, Affinity: "k", MaxInFlight: 100, MaxMessage: 7},
		},
		"its own balance": {Policy{Balance: RoundRobin}, all, Policy{Balance: RoundRobin, MaxInFlight: 100}},
		"its own limit and more": {
			Policy{Balance: LeastInFlight, MaxInFlight: 1}, all, Policy{Balance: LeastInFlight, MaxInFlight: 1},
		},
	} {
		r := New(Options{Policies: map[string]Policy{"*": test.all, echo: test.own}})
		r.Offer("x", echo)
		if got := *r.Service(echo).Policy(); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"pkg.Service": true, "Service": true, "a.b.C_1": true,
		"": false, "pkg.": false, ".S": false, "1.S": false, "a b": false, "a/b": false,
		"\x1b[2J": false, "ä.S": false,
		strings.Repeat("x", maxName): true, strings.Repeat("x", maxName+1): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v, want ok %t", name, err, ok)
		}
	}
}

func TestInfrastructure(t *testing.T) {
	for name, want := range map[string]bool{
		"grpc.health.v1.Health": true, "grpc.reflection.v1alpha.ServerReflection": true,
		"grpc.channelz.v1.Channelz": true,
		"proto.CoreService":         true, "hsu.master.admin.v1.Registry": true,
		"proto.MyBusinessService": false, "grpc.testing.TestService": false, "proto.CoreServices": false,
	} {
		if got := Infrastructure(name); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}
