package gateway

import "time"

// Limits bound what a sandbox can make the gateway hold. The zero value of a
// field stands for its default.
type Limits struct {
	TCP      int // connections at once
	HalfOpen int // connections being made, at once
	UDP      int // pairs of addresses at once
	Echo     int // pings at once
	Starts   int // new flows a second; twice as many in a burst

	Questions    int // to the name servers, at once
	QuestionRate int // a second

	Dial       time.Duration // for making a connection on the host
	TCPIdle    time.Duration // without a byte
	HalfClosed time.Duration // without a byte, once one side has closed
	UDPIdle    time.Duration
	EchoIdle   time.Duration
	Linger     time.Duration // for the last bytes to be acknowledged

	// Buffer is what each direction of a TCP connection may hold, in bytes. Only
	// Wide connections at once have so much, further ones are narrow: few carry much,
	// and many together would be too large.
	Buffer int
	Wide   int
}

// A narrow connection holds so much from and for the sandbox, and moves so much
// at once, in bytes. The sandbox may have sent a first window before it is known
// to be narrow.
const (
	narrowReceive = 64 << 10
	narrowSend    = 32 << 10
	narrowCopy    = 16 << 10
)

// withDefaults bounds the gateway's memory at about 280 MB at the very worst:
// Wide connections times two of Buffer and two of copySize, 20 MB; the other 992
// times what narrow ones have, 130 MB; UDP times two datagrams and udpQueue,
// 100 MB; maxNameConns times what narrow ones have and an answer, 5 MB; and
// Questions times an answer as it came, as it was read and as it is packed, 20 MB.
func (l Limits) withDefaults() Limits {
	def(&l.TCP, 1024)
	def(&l.HalfOpen, 256)
	def(&l.UDP, 512)
	def(&l.Echo, 32)
	def(&l.Starts, 2000)
	def(&l.Questions, 64)
	def(&l.QuestionRate, 1000)
	def(&l.Dial, 20*time.Second)
	def(&l.TCPIdle, 2*time.Hour)
	def(&l.HalfClosed, 5*time.Minute)
	def(&l.UDPIdle, time.Minute)
	def(&l.EchoIdle, 10*time.Second)
	def(&l.Linger, 10*time.Second)
	def(&l.Buffer, 256<<10)
	def(&l.Wide, 32)
	return l
}

func def[T int | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}
