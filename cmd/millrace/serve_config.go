package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

// keys are the settings of nsqd's configuration file that are not named like their flags.
var keys = map[string]string{
	"id":                                 "node-id",
	"nsqlookupd_tcp_addresses":           "lookupd-tcp-address",
	"auth_http_addresses":                "auth-http-address",
	"e2e_processing_latency_percentiles": "e2e-processing-latency-percentile",
}

// readConfig reads a configuration file in TOML: nsqd's names and values.
func readConfig(file string) (map[string]any, error) {
	var settings map[string]any
	_, err := toml.DecodeFile(file, &settings)
	var broken toml.ParseError
	switch {
	case errors.As(err, &broken):
		return nil, flagError("config", "%s, line %d: %s", file, broken.Position.Line, broken.Message)
	case errors.As(err, new(*fs.PathError)):
		return nil, flagError("config", "cannot read %s: %s", file, sentence(err))
	case err != nil:
		return nil, flagError("config", "%s: %w", file, err)
	}
	return settings, nil
}

// apply sets the flags that the configuration file has a value for, and that the command
// line has none for.
func (o *serveOptions) apply(settings map[string]any) error {
	onCommandLine := make(map[string]bool)
	o.given.Visit(func(f *pflag.Flag) { onCommandLine[f.Name] = true })
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		flag := o.flagOf(key)
		switch {
		case flag == nil && o.nsqd:
			// nsqd does not even say so.
			o.notes = append(o.notes, fmt.Sprintf("%s: there is no setting %q", o.configFile, key))
			continue
		case flag == nil:
			return flagError("config", "%s: there is no setting %q", o.configFile, key)
		case onCommandLine[flag.Name]:
			continue
		}
		values, err := texts(flag, settings[key])
		for _, value := range values {
			if err == nil {
				err = o.given.Set(flag.Name, value)
			}
		}
		if err != nil {
			return flagError("config", "%s: %s: %s", o.configFile, key, sentence(err))
		}
	}
	return nil
}

// flagOf returns the flag that a setting stands for, or nil.
func (o *serveOptions) flagOf(key string) *pflag.Flag {
	name, ok := keys[key]
	if !ok {
		name = strings.ReplaceAll(key, "_", "-")
	}
	if name == "config" || name == "version" || name == "help" {
		return nil
	}
	return o.given.Lookup(name)
}

// texts returns what would have to be written on the command line, once for each time.
func texts(flag *pflag.Flag, value any) ([]string, error) {
	kind := flag.Value.Type()
	switch v := value.(type) {
	case []any:
		var all []string
		for _, one := range v {
			some, err := texts(flag, one)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
		return all, nil
	case string:
		switch {
		case kind == "stringArray":
			return strings.FieldsFunc(v, func(r rune) bool { return r == ',' }), nil
		case v == "" && kind != "string":
			return nil, nil // as good as not written
		}
		return []string{v}, nil
	case int64:
		if kind == "duration" {
			return []string{(time.Duration(v) * time.Millisecond).String()}, nil
		}
		return []string{strconv.FormatInt(v, 10)}, nil
	case float64:
		return []string{strconv.FormatFloat(v, 'g', -1, 64)}, nil
	case bool:
		return []string{strconv.FormatBool(v)}, nil
	}
	return nil, errors.New("its value is neither text, a number, true or false, nor a list of those")
}

// nsqdOptions are nsqd's options as its GET /config/NAME tells them.
func nsqdOptions(f *pflag.FlagSet) map[string]any {
	named := make(map[string]string)
	for key, name := range keys {
		named[name] = key
	}
	options := make(map[string]any)
	f.VisitAll(func(flag *pflag.Flag) {
		key, ok := named[flag.Name]
		if !ok {
			key = strings.ReplaceAll(flag.Name, "-", "_")
		}
		switch key {
		case "config", "version", "help", "verbose", "worker_id", "auth_token_file":
		case "broadcast_address", "broadcast_tcp_port", "broadcast_http_port", "max_msg_timeout", "max_req_timeout":
			// The door knows better: 0 and "" are not what they come to.
		default:
			options[key] = typed(flag)
		}
	})
	return options
}

// typed returns the value of a flag as JSON should have it.
func typed(flag *pflag.Flag) any {
	text := flag.Value.String()
	switch flag.Value.Type() {
	case "int", "int64":
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case "bool":
		return text == "true"
	case "duration":
		if d, err := time.ParseDuration(text); err == nil {
			return d
		}
	case "float64Slice":
		numbers := []float64{}
		for _, s := range flag.Value.(pflag.SliceValue).GetSlice() {
			if n, err := strconv.ParseFloat(s, 64); err == nil {
				numbers = append(numbers, n)
			}
		}
		return numbers
	case "stringArray":
		return append([]string{}, flag.Value.(pflag.SliceValue).GetSlice()...)
	}
	if getter, ok := flag.Value.(interface{ Get() any }); ok {
		return getter.Get()
	}
	return text
}

// readLevel returns the log level that the configuration file names now, unless the
// command line has named one.
func (o *serveOptions) readLevel() (logLevel, error) {
	level := o.logLevel
	if o.configFile == "" || o.levelByHand {
		return level, nil
	}
	settings, err := readConfig(o.configFile)
	if err != nil {
		return level, err
	}
	text, ok := settings["log_level"].(string)
	if !ok {
		return level, nil
	}
	if err := level.Set(text); err != nil {
		return level, flagError("config", "%s: log_level: %w", o.configFile, err)
	}
	return level, nil
}
