package door

import (
	"net/http"
	"path"
	"slices"
	"strings"
)

// router finds what answers a request, as nsqd's does: a path that is almost right is
// redirected to the one that is, OPTIONS says what is allowed, and the rest is 404 or 405
// in nsqd's JSON.
type router struct {
	routes   map[string]map[string]http.Handler // by path, then by method
	folded   map[string]string                  // the path for one in lower case
	notFound func(status int, reason string) http.Handler
}

// optionPath is the one path that ends in a parameter, which is the value of "opt".
const optionPath = "/config/"

func newRouter(notFound func(status int, reason string) http.Handler) *router {
	return &router{
		routes:   make(map[string]map[string]http.Handler),
		folded:   make(map[string]string),
		notFound: notFound,
	}
}

func (m *router) handle(method, path string, h http.Handler) {
	if m.routes[path] == nil {
		m.routes[path] = make(map[string]http.Handler)
	}
	m.routes[path][method] = h
	m.folded[strings.ToLower(path)] = path
}

// find returns the handlers of a path by method, and its parameter.
func (m *router) find(path string) (handlers map[string]http.Handler, opt string) {
	if opt, ok := strings.CutPrefix(path, optionPath); ok {
		if opt == "" || strings.Contains(opt, "/") {
			return nil, ""
		}
		return m.routes[optionPath], opt
	}
	return m.routes[path], ""
}

// similar returns the path of a route of that method that differs from p in case, in a
// slash at the end, or in what path.Clean takes away.
func (m *router) similar(method, p string) (string, bool) {
	p = path.Clean("/" + p)
	for _, candidate := range []string{p, p + "/"} {
		folded := strings.ToLower(candidate)
		exact, ok := m.folded[folded]
		if strings.HasPrefix(folded, optionPath) {
			exact, ok = optionPath+candidate[len(optionPath):], true
		}
		if ok {
			if handlers, _ := m.find(exact); handlers[method] != nil {
				return exact, true
			}
		}
	}
	return "", false
}

// ServeHTTP implements http.Handler.
func (m *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	handlers, opt := m.find(p)
	if h := handlers[r.Method]; h != nil {
		r.SetPathValue("opt", opt)
		h.ServeHTTP(w, r)
		return
	}
	if exact, ok := m.similar(r.Method, p); ok {
		status := http.StatusMovedPermanently
		if r.Method != http.MethodGet {
			status = http.StatusTemporaryRedirect
		}
		r.URL.Path = exact
		http.Redirect(w, r, r.URL.String(), status)
		return
	}
	if len(handlers) == 0 {
		m.notFound(http.StatusNotFound, "NOT_FOUND").ServeHTTP(w, r)
		return
	}
	w.Header().Set("Allow", allow(handlers))
	if r.Method != http.MethodOptions {
		m.notFound(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED").ServeHTTP(w, r)
	}
}

func allow(handlers map[string]http.Handler) string {
	methods := []string{http.MethodOptions}
	for method := range handlers {
		methods = append(methods, method)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}
