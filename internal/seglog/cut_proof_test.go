package seglog_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// A batch is on the disk in part when the disk begins to fail, and what is cut off again is
// not safely cut off, nor what is hollowed then. The process dies, the next one goes on; then
// the power fails, and what had been cut off is there again. It does not stand in for what
// was committed since.
func TestWhatWasCutOffTakesNoNumberOfWhatCameAfter(t *testing.T) {
	for _, hollow := range []bool{false, true} {
		disk := newDisk(t)
		failing := false
		fs := inject(disk, func(op vfs.Op) error {
			failing = failing || op.Kind == vfs.OpSyncDir && op.Name == dir && len(filesOf(t, disk)) == 2
			if failing && (op.Kind == vfs.OpSync || op.Kind == vfs.OpSyncDir) {
				return errInjected
			}
			return nil
		})
		o := mustOpen(t, fs, seglog.SyncAlways)
		o.add(t, "before")
		if err := o.Commit(o.put(t, "refused", strings.Repeat("too much for one segment", 50))); err == nil {
			t.Fatal("committed on a broken disk")
		}
		if s, ok := o.Ended(); hollow && ok {
			_ = o.Hollow(s.Base) // which may fail
		}
		o.stop()

		o = mustOpen(t, disk, seglog.SyncAlways)
		o.add(t, "after", "and later")
		o.stop()

		got := mustOpen(t, disk.Crash(), seglog.SyncAlways).bodies(t)
		for _, want := range []string{"after", "and later"} {
			if !slices.Contains(got, want) {
				t.Errorf("hollowed before: %t; after the power loss %q are there, and not %q", hollow, got, want)
			}
		}
	}
}
