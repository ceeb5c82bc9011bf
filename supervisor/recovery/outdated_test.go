package recovery

import (
	"os"
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func TestCompare(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plain := unit.Spec{Name: "u", Path: self, Args: []string{"-v"}}
	secret := plain
	secret.Env = []string{"TOKEN=first", "LEVEL=info"}
	with := func(u unit.Spec, change func(*unit.Spec)) unit.Spec {
		u.Args, u.Env = slices.Clone(u.Args), slices.Clone(u.Env)
		change(&u)
		return u
	}
	quiet := with(secret, func(u *unit.Spec) { u.Args[0] = "-q" })
	turned := with(secret, func(u *unit.Spec) { slices.Reverse(u.Env) })
	value := with(secret, func(u *unit.Spec) { u.Env[0] = "TOKEN=second" })
	key, other := records.SecretKey("the one key"), records.SecretKey("another key")
	started := func(u unit.Spec, key records.SecretKey) records.Worker {
		hash, err := u.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return records.Worker{
			Incarnation: 1, SpecHash: hash, SecretKey: key.ID(), EnvironmentMAC: key.MAC(u.Name, u.Env),
		}
	}
	earlier := started(secret, nil)
	earlier.SpecHash = "of an earlier version, from the values too"
	for name, c := range map[string]struct {
		key    records.SecretKey
		before unit.Spec // the unit before a change; the same as now if it has no name
		now    unit.Spec
		rec    records.Worker
		want   Difference
	}{
		"the same":                {key: key, now: secret, rec: started(secret, key), want: Same},
		"a value":                 {key: key, now: value, rec: started(secret, key), want: Differs},
		"the order":               {key: key, now: turned, rec: started(secret, key), want: Differs},
		"one variable more":       {key: key, now: secret, rec: started(plain, key), want: Differs},
		"no variable any more":    {key: key, now: plain, rec: started(secret, key), want: Differs},
		"another key":             {key: key, now: secret, rec: started(secret, other), want: Incomparable},
		"another key and a value": {key: key, now: value, rec: started(secret, other), want: Incomparable},
		"another key, a change of a value": {
			key: key, before: secret, now: value, rec: started(secret, other), want: Differs,
		},
		"another key, a change of the grace": {
			key: key, before: with(secret, func(u *unit.Spec) { u.Stop.Grace = 1 }), now: secret,
			rec: started(secret, other), want: Incomparable,
		},
		"another key and an argument": {
			key: key, now: quiet, rec: started(secret, other), want: Differs,
		},
		"another key, no environment":               {key: key, now: plain, rec: started(plain, other), want: Same},
		"no key":                                    {now: secret, rec: started(secret, key), want: Incomparable},
		"no key at either":                          {now: secret, rec: started(secret, nil), want: Incomparable},
		"no key, no environment":                    {now: plain, rec: started(plain, key), want: Same},
		"an earlier version":                        {key: key, now: secret, rec: earlier, want: Incomparable},
		"an earlier version without an environment": {key: key, now: plain, rec: started(plain, nil), want: Same},
		"an earlier version, an argument": {
			key: key, before: secret, now: quiet, rec: earlier, want: Differs,
		},
		"never started": {key: key, now: secret, rec: records.Worker{}, want: Same},
		"not to be read": {
			key: key, now: unit.Spec{Name: "u", Path: "/nonexistent"}, rec: started(secret, key), want: Same,
		},
	} {
		if c.before.Name == "" {
			c.before = c.now
		}
		if got := CompareChange(c.key, &c.before, &c.now, c.rec); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
