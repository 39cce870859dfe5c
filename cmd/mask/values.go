package mask

import (
	"encoding/binary"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Mask is what stands in place of a value.
const Mask = "***"

const (
	// minValue is the shortest value that is masked, in bytes: what is shorter
	// would take the sense from every text.
	minValue = 4
	// gramSize is the longest piece that is looked for, in bytes. A longer form of
	// a value is found by each of its pieces of that size, wherever it is cut.
	gramSize = 16
	// maxGrams bounds what is looked for: about 50 KiB of values, in 20 MB.
	maxGrams = 1 << 19
)

// Errors of Add.
var (
	ErrShort = errors.New("too short to be masked in the log: it has less than 4 bytes")
	ErrMuch  = errors.New("too large to be masked in the log as a whole")
)

// A gram is a piece of 4 to 16 bytes that must not be shown; its length is the
// last byte.
type gram [gramSize + 1]byte

// Values are what must not be shown. They are safe for concurrent use, and a
// nil *Values masks nothing.
type Values struct {
	mu    sync.RWMutex
	grams map[gram]struct{}
	// sizes are the lengths that grams have, the longest first.
	sizes []int
	// starts has a bit for the hash of the first four bytes of each gram, first
	// tells its first byte.
	starts [1 << startBits / 64]uint64
	first  [256]bool
}

// startBits is the size of the hash of a gram's first four bytes, in bits.
const startBits = 20

// New returns Values that mask nothing yet.
func New() *Values { return &Values{grams: map[gram]struct{}{}} }

// Add has value masked from now on, in its usual encodings (see forms). An empty
// one is nothing. The errors ErrShort and ErrMuch tell that it is not, or not
// wholly.
func (v *Values) Add(value []byte) error {
	if v == nil || len(value) == 0 {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	short := true
	for _, atom := range atoms(value) {
		if len(atom) < minValue {
			continue
		}
		short = false
		for form := range forms(atom) {
			if len(form) >= minValue && !v.addForm(form) {
				return ErrMuch
			}
		}
	}
	if short {
		return ErrShort
	}
	return nil
}

// addForm adds the grams of a form; false says that there is no room.
func (v *Values) addForm(form []byte) bool {
	size := min(len(form), gramSize)
	for i := 0; i+size <= len(form); i++ {
		piece := form[i : i+size]
		// A ruler of dashes in a file of secrets is none.
		if len(form) > gramSize && ruler(piece) {
			continue
		}
		if len(v.grams) >= maxGrams {
			return false
		}
		v.grams[gramOf(piece)] = struct{}{}
		h := hash(binary.LittleEndian.Uint32(piece))
		v.starts[h/64] |= 1 << (h % 64)
		v.first[piece[0]] = true
		if !slices.Contains(v.sizes, size) {
			v.sizes = append(v.sizes, size)
			slices.SortFunc(v.sizes, func(a, b int) int { return b - a })
		}
	}
	return true
}

func gramOf(piece []byte) (g gram) {
	copy(g[:gramSize], piece)
	g[gramSize] = byte(len(piece))
	return g
}

// hash is Fibonacci hashing (Knuth, volume 3, section 6.4).
func hash(word uint32) uint32 { return word * 0x9e3779b1 >> (32 - startBits) }

// ruler tells whether a piece is made of few different signs, and of no letter or
// digit.
func ruler(piece []byte) bool {
	signs := 0
	for i, c := range piece {
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= 0x80 {
			return false
		}
		if slices.Index(piece, c) == i {
			signs++
		}
	}
	return signs < 4
}

// begins tells whether a gram may begin with what is at the start of text.
func (v *Values) begins(text []byte) bool {
	if len(text) < 4 {
		return len(text) > 0 && v.first[text[0]]
	}
	h := hash(binary.LittleEndian.Uint32(text))
	return v.starts[h/64]&(1<<(h%64)) != 0
}

// match is the length of the longest gram at the start of text, or 0.
func (v *Values) match(text []byte) int {
	for _, size := range v.sizes {
		if size > len(text) {
			continue
		}
		if _, ok := v.grams[gramOf(text[:size])]; ok {
			return size
		}
	}
	return 0
}

// userinfo finds what stands before the host of a URL (RFC 3986, section 3.2.1).
var userinfo = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://([^/?#@\s]*)@`)

// minToken is the shortest name in a URL that is taken for a token: git hosts
// take tokens in place of the user's name.
const minToken = 16

// AddURLs has the passwords and tokens of all URLs in texts masked.
func (v *Values) AddURLs(texts ...string) {
	for _, text := range texts {
		for _, found := range userinfo.FindAllStringSubmatch(text, -1) {
			user, password, _ := strings.Cut(found[1], ":")
			if len(user) < minToken {
				user = ""
			}
			for _, part := range []string{user, password} {
				_ = v.Add([]byte(part)) // what is too short was on the command line
				if plain, err := url.PathUnescape(part); err == nil && plain != part {
					_ = v.Add([]byte(plain))
				}
			}
		}
	}
}
