package gateway

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/kbuild-sandbox/kbuild-sandbox/policy"
)

// Config is one gateway, of one sandbox.
type Config struct {
	// Link is the packet socket of the link's far end (see Through), or a TAP.
	// New takes it over.
	Link *os.File
	MTU  int // of Link; 0: LinkMTU
	// Egress says what may be reached.
	Egress policy.Egress
	// Resolvers are the host's name servers, see ParseResolvers. They are asked
	// whatever Egress says. None: every question fails.
	Resolvers []netip.AddrPort
	// Hosts are names that are answered here, in lower case without a dot at the
	// end: the host's own table, see ParseHosts. Egress counts for the addresses.
	// The loopback address of a name is told as the gateway's.
	Hosts map[string][]netip.Addr
	// Search are the domains that the sandbox completes names with, see
	// ParseSearch: a rule for a name counts for it with one of them behind it.
	Search []string
	Role   string // of the sandbox, for the records
	// Sink takes the records, one at a time. While it does not return, flows
	// that end wait, and no new ones begin when the queue is full.
	Sink   func(Record)
	Limits Limits
}

// Gateway is a running gateway.
type Gateway struct {
	link   *os.File
	net    *stack.Stack
	egress policy.Egress
	role   string
	limits Limits
	ctx    context.Context // ends with the gateway
	cancel context.CancelFunc

	records   *recorder
	names     names
	mute      mute
	attempts  attempts
	own       own
	pings     pings
	resolver  resolver
	hosts     map[string][]netip.Addr
	search    []string
	starts    *rate.Limiter
	questions *rate.Limiter

	mu      sync.Mutex
	ending  bool
	steps   []string
	live    map[string]int // flows by protocol
	wide    int            // connections with large buffers
	table   map[*flow]struct{}
	running sync.WaitGroup // flows
	loops   sync.WaitGroup // the gateway's own

	flowCount, deniedCount, shed, strays atomic.Uint64
}

// New starts a gateway. It serves until Close; when the sandbox's end of the
// link goes away it is idle.
func New(c Config) (*Gateway, error) {
	if c.Link == nil || c.Sink == nil {
		return nil, errors.New("gateway: link and sink must be given")
	}
	if c.MTU == 0 {
		c.MTU = LinkMTU
	}
	l := c.Limits.withDefaults()
	g := &Gateway{
		link: c.Link, egress: c.Egress, role: c.Role, limits: l,
		names:    names{byAddr: map[netip.Addr][]named{}},
		mute:     mute{until: map[pair]time.Time{}},
		attempts: attempts{seen: map[pair]attempt{}},
		own:      own{list: net.InterfaceAddrs},
		pings:    pings{live: map[pair]*ping{}},
		resolver: resolver{servers: c.Resolvers}, hosts: c.Hosts, search: c.Search,
		starts:    rate.NewLimiter(rate.Limit(l.Starts), 2*l.Starts),
		questions: rate.NewLimiter(rate.Limit(l.QuestionRate), l.QuestionRate),
		live:      map[string]int{}, table: map[*flow]struct{}{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.records = newRecorder(c.Sink)
	err := g.start(c.MTU)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// start brings up the stack and what listens on it.
func (g *Gateway) start(mtu int) (err error) {
	if g.net, err = g.newStack(mtu); err != nil {
		return err
	}
	if err := g.serveNames(); err != nil {
		return err
	}
	g.loops.Go(g.sweep)
	return nil
}

// SetSteps says what runs from now on; flows that begin bear it. The gateway
// cannot tell steps that run at once apart. The slice is not to be changed.
func (g *Gateway) SetSteps(names []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.steps = names
}

// Counters returns the counts so far.
func (g *Gateway) Counters() Counters {
	return Counters{
		Flows: g.flowCount.Load(), Records: g.records.taken.Load(), Denied: g.deniedCount.Load(),
		Shed: g.shed.Load(), Strays: g.strays.Load(),
	}
}

// Close breaks off what is open and returns when the sink has every record.
func (g *Gateway) Close() error {
	g.mu.Lock()
	if g.ending {
		g.mu.Unlock()
		return nil
	}
	g.ending = true
	g.mu.Unlock()
	g.cancel()
	g.breakOff(func(*flow) bool { return true })
	if g.net != nil {
		g.abortAll()
		g.net.Destroy()
	}
	g.loops.Wait()
	g.records.close()
	return g.link.Close()
}

// abortAll ends the sandbox's side of every flow, and waits for their records.
// A handshake may begin while it does: so it does it again.
func (g *Gateway) abortAll() {
	ended := make(chan struct{})
	go func() {
		g.running.Wait()
		close(ended)
	}()
	for {
		for _, e := range g.net.RegisteredEndpoints() {
			e.Abort()
		}
		select {
		case <-ended:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
