package rotate

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// tidy removes and compresses the rotated files of a log as its policy says. No other function removes rotated files.
// It compresses the newest file first: if the worker writes faster than that, the oldest are removed uncompressed.
func tidy(ctx context.Context, l Log, st steps) error {
	for {
		files, err := prune(l, st)
		if err != nil || !l.Policy.Compress {
			return err
		}
		next := slices.IndexFunc(files, func(f layout.Rotated) bool { return !f.Compressed })
		if next < 0 {
			return nil
		}
		if err := compress(ctx, files[next].Path, st); err != nil {
			return fmt.Errorf("compress %s: %w", files[next].Path, err)
		}
	}
}

// prune removes the rotated files that are not to be kept, and unfinished ones. It returns the others, newest first.
func prune(l Log, st steps) ([]layout.Rotated, error) {
	files, err := layout.List(l.Path)
	if err != nil {
		return nil, err
	}
	var errs []error
	remove := func(path string) {
		err := st.Perform(crashpoint.LogRemove, func() error { return os.Remove(path) })
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, path := range files.Unfinished {
		remove(path)
	}
	var kept []layout.Rotated
	for _, f := range slices.Backward(files.Rotated) {
		switch n := len(kept); {
		case n > 0 && kept[n-1].N == f.N: // it was compressed, but not removed; f is the compressed form
			remove(kept[n-1].Path)
			kept[n-1] = f
		case n >= max(0, l.Policy.Keep) || expired(f.Path, l.Policy.MaxAge):
			remove(f.Path)
		default:
			kept = append(kept, f)
		}
	}
	return kept, errors.Join(errs...)
}

// expired reports whether a rotated file is older than age, unless that is 0.
func expired(path string, age time.Duration) bool {
	if age == 0 {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && time.Since(info.ModTime()) > age
}

// compress replaces a rotated file by its compressed form.
func compress(ctx context.Context, path string, st steps) (err error) {
	from, err := safefile.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	temp := layout.UnfinishedPath(path)
	to, err := safefile.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = st.Perform(crashpoint.LogCompress.Write(), func() error { return zip(ctx, to, from, info) })
	if err == nil {
		err = st.Perform(crashpoint.LogCompress.Sync(), to.Sync)
	}
	if err = errors.Join(err, to.Close()); err == nil {
		err = os.Chtimes(temp, time.Time{}, info.ModTime()) // the age of the lines
	}
	if err == nil {
		err = st.Perform(crashpoint.LogCompress.Rename(), func() error {
			return os.Rename(temp, layout.CompressedPath(path))
		})
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	err = st.Perform(crashpoint.LogCompress.SyncFolder(), func() error { return safefile.SyncDir(filepath.Dir(path)) })
	if err != nil {
		return err
	}
	return st.Perform(crashpoint.LogRemove, func() error { return os.Remove(path) })
}

func zip(ctx context.Context, to, from *os.File, info fs.FileInfo) error {
	z, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return err
	}
	return errors.Join(copyTo(ctx, z, from, info.Size()), z.Close())
}
