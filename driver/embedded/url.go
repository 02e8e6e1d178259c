package embedded

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

// parse reads the URL of an embedded broker. Its errors wrap millrace.ErrBadURL.
func parse(u *url.URL) (broker.Options, error) {
	var opts broker.Options
	dir, err := directory(u)
	switch {
	case err != nil:
		return opts, badURL("%w", err)
	case u.Fragment != "":
		return opts, badURL("%s has a '#', which is written %%23 in a URL", u.Redacted())
	case u.User != nil:
		return opts, badURL("%s names a user, and the broker is in this process: leave it out", u.Redacted())
	case u.Scheme == "mem" && (dir != "" || u.Host != ""):
		return opts, badURL("mem: takes nothing behind it; a broker in a directory is file:///path/to/directory")
	case u.Host != "" && u.Host != "localhost":
		return opts, badURL("%s names the host %s, and the broker is in this process: an absolute directory has three slashes, file:///%s%s", u.Redacted(), u.Host, u.Host, u.Path)
	case u.Scheme == "file" && dir == "":
		return opts, badURL("file: needs a directory, as in file:///var/lib/jobs")
	}
	opts.Dir = dir
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return opts, badURL("its options %q cannot be read: %w", u.RawQuery, err)
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		if key != "sync" || u.Scheme != "file" {
			return opts, badURL("there is no option %q; only file: has one, sync", key)
		}
		if len(query[key]) > 1 {
			return opts, badURL("sync is there %d times", len(query[key]))
		}
		if opts.Sync, err = ParseSync(query.Get(key)); err != nil {
			return opts, badURL("%w", err)
		}
	}
	return opts, nil
}

// directory is what stands behind the scheme: absolute, or relative as in file:jobs.
func directory(u *url.URL) (string, error) {
	if u.Opaque != "" {
		return url.PathUnescape(u.Opaque)
	}
	if u.Scheme == "mem" {
		return strings.Trim(u.Path, "/"), nil
	}
	return u.Path, nil
}

func badURL(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{millrace.ErrBadURL}, args...)...)
}

// ParseSync reads "always", "never" or a positive duration as broker.Options.Sync.
func ParseSync(s string) (time.Duration, error) {
	switch s {
	case "always":
		return broker.SyncAlways, nil
	case "never":
		return broker.SyncNever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("sync=%s: write always, never, or a duration such as 2s", s)
	}
	return d, nil
}
