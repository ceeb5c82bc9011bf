package process

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
)

// Attributes are the user, the rights and the limits of a process. Each zero field means that of the master.
type Attributes struct {
	// User and Group are names or numbers. The group is that of the user if only the user is set. The supplementary
	// groups are those of the user.
	User  string `json:",omitempty"`
	Group string `json:",omitempty"`

	Umask *uint32 `json:",omitempty"`
	Nice  int     `json:",omitempty"`
	// OpenFiles and Core are soft and hard limits: RLIMIT_NOFILE, and RLIMIT_CORE in bytes.
	OpenFiles *uint64 `json:",omitempty"`
	Core      *uint64 `json:",omitempty"`

	// Capabilities are the names, without CAP_, of those that the process can have; nil means those of the master,
	// an empty list none.
	Capabilities    []string `json:",omitzero"`
	NoNewPrivileges bool     `json:",omitempty"`
}

// IsZero reports whether no attribute is set.
func (a Attributes) IsZero() bool {
	return a.User == "" && a.Group == "" && a.Umask == nil && a.Nice == 0 && a.OpenFiles == nil && a.Core == nil &&
		a.Capabilities == nil && !a.NoNewPrivileges
}

// Account is a user of this host with its groups.
type Account struct {
	UID, GID   uint32
	Groups     []uint32 // supplementary
	Name, Home string   // "" if they are not known
}

// Rights are attributes with the account that their user and group had when they were looked up.
type Rights struct {
	Attributes
	Account Account
}

// Resolve looks up the user and the group. Without either, the account is that of this process, and has no names.
//
// It uses package os/user: a program that is built without cgo, as hsu-master is, reads /etc/passwd and /etc/group
// and does not ask NSS. A number needs no entry there if the group is set too.
func (a Attributes) Resolve() (Rights, error) {
	r := Rights{Attributes: a, Account: ownAccount()}
	if a.User == "" && a.Group == "" {
		return r, nil
	}
	if !accountsSupported {
		return r, fmt.Errorf("run as another user or group: %w", errors.ErrUnsupported)
	}
	var err error
	if a.User != "" {
		r.Account, err = accountOf(a.User, a.Group)
	} else {
		r.Account, err = accountOf(strconv.Itoa(os.Geteuid()), a.Group)
		r.Account.Name, r.Account.Home = "", "" // the environment remains that of the master
	}
	return r, err
}

func ownAccount() Account {
	return Account{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} //nolint:gosec // 32 bits where there are ids
}

// accountOf looks up a user and its groups. If group is not empty, it takes the place of the user's own.
func accountOf(name, group string) (Account, error) {
	found, err := lookUpUser(name)
	if err != nil {
		return Account{}, err
	}
	var a Account
	if found == nil {
		a.UID, err = id(name)
	} else {
		a.Name, a.Home = found.Username, found.HomeDir
		a.UID, err = id(found.Uid)
	}
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", name, err)
	}
	switch {
	case group != "":
		a.GID, err = lookUpGroup(group)
	case found != nil:
		a.GID, err = id(found.Gid)
	default:
		err = fmt.Errorf("user %s has no entry on this host, so its group is not known: set the group too", name)
	}
	if err == nil && found != nil {
		a.Groups, err = supplementary(found, a.GID)
	}
	if err != nil {
		return Account{}, err
	}
	return a, nil
}

// lookUpUser returns the entry of a user, or nil for a number that has none.
func lookUpUser(name string) (*user.User, error) {
	look := user.Lookup
	_, notNumber := id(name)
	if notNumber == nil {
		look = user.LookupId
	}
	found, err := look(name)
	_, unknownName := errors.AsType[user.UnknownUserError](err)
	_, unknownID := errors.AsType[user.UnknownUserIdError](err)
	switch {
	case unknownID:
		return nil, nil //nolint:nilnil // documented
	case unknownName:
		return nil, fmt.Errorf("there is no user %q on this host: create it, or correct the unit's user", name)
	case err != nil:
		return nil, fmt.Errorf("look up user %q: %w", name, err)
	}
	return found, nil
}

func lookUpGroup(name string) (uint32, error) {
	if n, err := id(name); err == nil {
		return n, nil
	}
	found, err := user.LookupGroup(name)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
		return 0, fmt.Errorf("there is no group %q on this host: create it, or correct the unit's group", name)
	}
	if err != nil {
		return 0, fmt.Errorf("look up group %q: %w", name, err)
	}
	return id(found.Gid)
}

// supplementary returns the groups that list the user as a member, and gid, the group that the process gets, as after
// a login with that group.
func supplementary(u *user.User, gid uint32) ([]uint32, error) {
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("look up the groups of user %q: %w", u.Username, err)
	}
	groups := []uint32{gid}
	for _, text := range ids {
		n, err := id(text)
		if err != nil {
			return nil, fmt.Errorf("the groups of user %q: %w", u.Username, err)
		}
		if text != u.Gid {
			groups = append(groups, n)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// noID is the number that system calls take for "do not change".
const noID = 1<<32 - 1

// id returns the number of a user or group.
func id(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == noID {
		return 0, fmt.Errorf("%q is no id of a user or group", text)
	}
	return uint32(n), nil
}
