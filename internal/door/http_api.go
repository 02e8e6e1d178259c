package door

import (
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
)

// route is what answers one method of one path.
type route struct {
	method, path string
	access       access
	answer       func(*request) answer
	plain        bool // the answer is text alone
	quiet        bool // nothing is logged
}

// routes is the whole API.
func (s *web) routes() []route {
	get, post, put := http.MethodGet, http.MethodPost, http.MethodPut
	return []route{
		{method: get, path: "/ping", access: anybody, answer: s.ping, plain: true},
		{method: get, path: "/info", access: known, answer: s.info},
		{method: get, path: "/stats", access: known, answer: s.stats},
		{method: get, path: "/metrics", access: known, answer: s.metrics, quiet: true},

		{method: post, path: "/pub", access: onTopic(Publish), answer: s.pub, quiet: true},
		{method: post, path: "/mpub", access: onTopic(Publish), answer: s.mpub, quiet: true},

		{method: post, path: "/topic/create", access: onTopic(Admin), answer: s.createTopic},
		{method: post, path: "/topic/delete", access: onTopic(Admin), answer: s.deleteTopic},
		{method: post, path: "/topic/empty", access: onTopic(Admin), answer: s.emptyTopic},
		{method: post, path: "/topic/pause", access: onTopic(Admin), answer: s.pauseTopic},
		{method: post, path: "/topic/unpause", access: onTopic(Admin), answer: s.unpauseTopic},
		{method: post, path: "/channel/create", access: onChannel, answer: s.createChannel},
		{method: post, path: "/channel/delete", access: onChannel, answer: s.deleteChannel},
		{method: post, path: "/channel/empty", access: onChannel, answer: s.emptyChannel},
		{method: post, path: "/channel/pause", access: onChannel, answer: s.pauseChannel},
		{method: post, path: "/channel/unpause", access: onChannel, answer: s.unpauseChannel},

		{method: get, path: "/peek", access: onQueue, answer: s.peek},
		{method: post, path: "/channel/replay", access: onChannel, answer: s.replay},

		{method: get, path: "/lookup", access: known, answer: s.lookup},
		{method: get, path: "/nodes", access: known, answer: s.nodes},
		{method: get, path: "/topics", access: known, answer: s.topics},
		{method: get, path: "/channels", access: known, answer: s.channels},

		{method: get, path: optionPath, access: operator, answer: s.option},
		{method: put, path: optionPath, access: operator, answer: s.setOption},

		{method: get, path: "/debug/pprof/", access: operator, answer: by(pprof.Index), quiet: true},
		{method: get, path: "/debug/pprof/cmdline", access: operator, answer: by(pprof.Cmdline), quiet: true},
		{method: get, path: "/debug/pprof/symbol", access: operator, answer: by(pprof.Symbol), quiet: true},
		{method: post, path: "/debug/pprof/symbol", access: operator, answer: by(pprof.Symbol), quiet: true},
		{method: get, path: "/debug/pprof/profile", access: operator, answer: by(pprof.Profile), quiet: true},
		{method: get, path: "/debug/pprof/heap", access: operator, answer: by(pprof.Handler("heap").ServeHTTP), quiet: true},
		{method: get, path: "/debug/pprof/goroutine", access: operator, answer: by(pprof.Handler("goroutine").ServeHTTP), quiet: true},
		{method: get, path: "/debug/pprof/block", access: operator, answer: by(pprof.Handler("block").ServeHTTP), quiet: true},
		{method: get, path: "/debug/pprof/threadcreate", access: operator, answer: by(pprof.Handler("threadcreate").ServeHTTP), quiet: true},
		{method: put, path: "/debug/setblockrate", access: operator, answer: setBlockRate, plain: true},
		{method: post, path: "/debug/freememory", access: operator, answer: freeMemory, plain: true},
	}
}

// by leaves the answer to a handler, which may take as long as it was asked to.
func by(h http.HandlerFunc) func(*request) answer {
	return func(*request) answer {
		return answer{status: http.StatusOK, by: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
			h(w, r)
		})}
	}
}

// setBlockRate and freeMemory answer nothing when all is well; nsqd 1.3 means to, but
// stumbles over it and says INTERNAL_ERROR.
func setBlockRate(r *request) answer {
	rate, err := strconv.Atoi(r.FormValue("rate"))
	if err != nil {
		return badRequest("invalid block rate : " + err.Error())
	}
	runtime.SetBlockProfileRate(rate)
	return done()
}

func freeMemory(*request) answer {
	debug.FreeOSMemory()
	return done()
}
