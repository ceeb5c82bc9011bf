package worker

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
)

// MaxAnnouncements limits the number of modules that the processes of a worker have published.
const MaxAnnouncements = 16

// Errors of [Worker.Announce].
var (
	ErrNotRecorded   = errors.New("the state cannot be recorded now")
	ErrTooMany       = errors.New("the worker has published as many modules as it may")
	ErrOtherInstance = errors.New("the worker has another process now")
)

// Living returns the present instance, nil if there is none.
func (w *Worker) Living(ctx context.Context) (launcher.Instance, error) {
	return command(ctx, w, func(context.Context) launcher.Instance { return w.owner.inst })
}

// Announce records a publication of a process of the instance, in place of an earlier one of that module.
// It is durable when Announce returns.
func (w *Worker) Announce(ctx context.Context, inst launcher.Instance, a records.Announcement) error {
	err, ended := command(ctx, w, func(ctx context.Context) error {
		return announcements{w.owner}.put(ctx, inst, a)
	})
	return errors.Join(err, ended)
}

// Unannounce removes the publication of a module by a process of the instance, as Announce adds it.
func (w *Worker) Unannounce(ctx context.Context, inst launcher.Instance, module string) error {
	err, ended := command(ctx, w, func(ctx context.Context) error {
		return announcements{w.owner}.remove(ctx, inst, module)
	})
	return errors.Join(err, ended)
}

// announcedBy returns a function, for any goroutine, that returns the publications of the instance with the token.
func (w *Worker) announcedBy(token string) func() []records.Announcement {
	return func() []records.Announcement {
		info := w.Info()
		if info == nil || info.Instance == nil || info.Instance.Token != token {
			return nil
		}
		return info.Instance.Announcements
	}
}

// announcements changes the recorded modules of the present instance. The list in a record is never changed,
// only replaced, because readers have been shown it.
type announcements struct{ w *owner }

func (a announcements) put(ctx context.Context, inst launcher.Instance, m records.Announcement) error {
	if err := a.of(inst); err != nil {
		return err
	}
	list := slices.Clone(a.w.rec.Instance.Announcements)
	at, found := slices.BinarySearchFunc(list, m.Module, byModule)
	switch {
	case found:
		list[at] = m
	case len(list) >= MaxAnnouncements:
		return ErrTooMany
	default:
		list = slices.Insert(list, at, m)
	}
	return a.set(ctx, list)
}

func (a announcements) remove(ctx context.Context, inst launcher.Instance, module string) error {
	if err := a.of(inst); err != nil {
		return err
	}
	list := slices.Clone(a.w.rec.Instance.Announcements)
	at, found := slices.BinarySearchFunc(list, module, byModule)
	if !found {
		return nil
	}
	return a.set(ctx, slices.Delete(list, at, at+1))
}

func byModule(a records.Announcement, module string) int { return strings.Compare(a.Module, module) }

// of returns an error if the instance is not the present one.
func (a announcements) of(inst launcher.Instance) error {
	if a.w.inst != inst || a.w.rec.Instance == nil {
		return ErrOtherInstance
	}
	return nil
}

// set records the list. If a running worker that chooses its port has published another one, it gets calls there when
// it has passed its check again.
func (a announcements) set(ctx context.Context, list []records.Announcement) error {
	w, before := a.w, a.w.rec.Instance
	if w.env.Store.Writable() != nil {
		return ErrNotRecorded
	}
	next := *before
	next.Announcements = list
	moved := false
	if ports := announcedPorts(list); next.OwnPort && w.link != nil && len(ports) == 1 && ports[0] != next.Port &&
		checkAnnounced(w.inst, ports[0]) == nil {
		next.Port, moved = ports[0], true
	}
	w.rec.Instance = &next
	if !w.journal.recordAt(ctx, crashpoint.AnnounceRecord, w.rec) {
		w.rec.Instance = before
		return ErrNotRecorded
	}
	w.publish()
	if moved && w.state.Running() {
		w.relink(ctx)
	}
	return nil
}
