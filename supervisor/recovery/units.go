package recovery

import (
	"reflect"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// UnitRecords returns the records of the configured units, in their order. They take over from the recorded ones what
// an operator has set: a scale is kept until the configured number of replicas changes, or until the unit cannot have
// that many. now is the time of a change, key that of the environments; without a key, these are not recorded.
func UnitRecords(
	key records.SecretKey, configured []unit.Spec, recorded []records.Unit, now time.Time,
) []records.Unit {
	list, known := Replicas(configured, recorded), byName(recorded)
	for i, u := range configured {
		before, rec := known[u.Name], list[i]
		// The executable may be in the middle of being replaced.
		if hash, err := u.WithDefaults().Hash(); err == nil {
			rec.SpecHash = hash
			rec.SecretKey, rec.EnvironmentMAC = key.ID(), key.MAC(u.Name, u.Env)
		}
		compared := rec
		if rec.SecretKey != before.SecretKey { // then the environments cannot be compared
			compared.SecretKey, compared.EnvironmentMAC = before.SecretKey, before.EnvironmentMAC
		}
		if !reflect.DeepEqual(compared, before) {
			rec.Changed, rec.ChangedBy = now, nil
		}
		list[i] = rec
	}
	return list
}

// Replicas returns what [UnitRecords] returns, without what follows from the executables, which it does not read.
func Replicas(configured []unit.Spec, recorded []records.Unit) []records.Unit {
	known := byName(recorded)
	list := make([]records.Unit, 0, len(configured))
	for i := range configured {
		u := &configured[i]
		before := known[u.Name]
		rec := before
		rec.Name, rec.Kind, rec.Replicas = u.Name, kindOf(u), u.Replicas
		if rec.Replicas != before.Replicas || rec.Scale != nil && WithReplicas(u, *rec.Scale).CheckFields() != nil {
			rec.Scale = nil
		}
		rec.Rollout = continued(u, rec)
		list = append(list, rec)
	}
	return list
}

// byName returns the recorded units that are wanted.
func byName(recorded []records.Unit) map[string]records.Unit {
	known := make(map[string]records.Unit, len(recorded))
	for _, rec := range recorded {
		if !rec.Retired {
			known[rec.Name] = rec
		}
	}
	return known
}

// continued returns the rest of the recorded rollout now that u is the configured unit.
func continued(u *unit.Spec, rec records.Unit) *records.Rollout {
	r := rec.Rollout
	if r == nil || !u.Starts() || rec.Wanted() == 0 {
		return nil
	}
	if r.Spare && !MayHaveSpare(u, rec.Wanted()) {
		return &records.Rollout{Act: r.Act, Workers: r.Workers, Operator: r.Operator}
	}
	return r
}

// MayHaveSpare reports whether a rollout of the unit, of which n workers are wanted, starts one more.
func MayHaveSpare(u *unit.Spec, n int) bool {
	return u.StartFirst && n > 0 && WithReplicas(u, n+1).CheckFields() == nil
}

// Wanted returns the configured units with their defaults and with the number of workers that their records say.
// UnitRecords or Replicas has made the records from the same units.
func Wanted(configured []unit.Spec, recs []records.Unit) []unit.Spec {
	wanted := make([]unit.Spec, 0, len(configured))
	for i, u := range configured {
		u.Disabled = u.Disabled || recs[i].Disabled
		wanted = append(wanted, *WithReplicas(&u, recs[i].Slots()).WithDefaults())
	}
	return wanted
}

// WithReplicas returns a copy of the unit with n replicas.
func WithReplicas(u *unit.Spec, n int) *unit.Spec {
	scaled := *u
	scaled.Replicas = n
	return &scaled
}

func kindOf(u *unit.Spec) records.UnitKind {
	switch u.Kind {
	case unit.Managed:
		return records.KindManaged
	case unit.Unmanaged:
		return records.KindUnmanaged
	default:
		return records.KindIntegrated
	}
}
