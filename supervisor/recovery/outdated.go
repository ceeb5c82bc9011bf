package recovery

import (
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Difference is how the last start of a worker differs from one that its unit would make now.
type Difference int

// The values of Difference.
const (
	Same         Difference = iota // also if the executable cannot be read
	Differs                        // in the executable, the arguments or the environment
	Incomparable                   // the environment was recorded with another key, and all else is the same
)

// Compare compares the last start of a worker with its unit. key is that of the state.
func Compare(key records.SecretKey, u *unit.Spec, rec records.Worker) Difference {
	if u.Schedule.Cron != "" && rec.Instance == nil {
		return Same // its next run is of the present version
	}
	hash, err := u.Hash()
	switch {
	case err != nil, rec.SpecHash == "" && !startedWithoutProgram(rec):
		return Same
	case hash != rec.SpecHash && rec.SecretKey == "" && len(u.Env) > 0:
		return Incomparable // an earlier version made the hash, from the values too
	case hash != rec.SpecHash:
		return Differs
	case len(u.Env) == 0:
		return Same
	case len(key) == 0, key.ID() != rec.SecretKey:
		return Incomparable
	case key.MAC(u.Name, u.Env) != rec.EnvironmentMAC:
		return Differs
	}
	return Same
}

// KeyLost is the reason why a worker is outdated whose unit may be the same as at its start.
const KeyLost = "its environment may have changed: it was recorded with another key than that of secret.key"

// HasLostKey reports whether the environment of the last start was recorded with another key than the one of the state.
func HasLostKey(key records.SecretKey, u *unit.Spec, rec records.Worker) bool {
	return len(u.Env) > 0 && rec.SecretKey != "" && rec.SecretKey != key.ID()
}

// CompareChange is like [Compare] for a change of the unit from before to u. A change of what cannot be compared is a
// difference.
func CompareChange(key records.SecretKey, before, u *unit.Spec, rec records.Worker) Difference {
	d := Compare(key, u, rec)
	if start, _ := before.Differences(u); d == Incomparable && len(start) > 0 {
		return Differs
	}
	return d
}

// Changed returns what differs between the start of the present instance and one that its unit would make now:
// "executable", "environment", or text about what cannot be told apart.
func Changed(key records.SecretKey, u *unit.Spec, rec records.Worker) (changed []string) {
	if rec.Instance == nil || !rec.Outdated {
		return nil
	}
	_, exe, err := u.Version()
	if err == nil && rec.Instance.ExeHash != "" && exe != rec.Instance.ExeHash {
		changed = append(changed, "executable")
	}
	switch {
	case HasLostKey(key, u, rec):
		changed = append(changed, KeyLost)
	case rec.SecretKey == key.ID() && key.MAC(u.Name, u.Env) != rec.EnvironmentMAC:
		changed = append(changed, "environment")
	}
	if len(changed) == 0 {
		changed = []string{"command, or another key that takes effect at a start"}
	}
	return changed
}

// startedWithoutProgram reports whether the last start failed because the executable could not be read, such as one
// that was missing.
func startedWithoutProgram(rec records.Worker) bool {
	waits := rec.Status == records.StatusFailed || rec.Status == records.StatusBackoff
	return waits && rec.Instance == nil && rec.Incarnation > 0 && rec.SpecHash == ""
}
