package escape

import (
	"archive/tar"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/escape/hostile"
	"github.com/kbuild-sandbox/kbuild-sandbox/e2e/flat"
)

// gitRows are what repositories and contexts did.
func gitRows() []Attack {
	rows := []Attack{
		{ID: 87, Source: "CVE-2019-13139", Title: "refs, hosts and URLs of git that are options or commands",
			Want: []Outcome{Rejected}, Run: gitOptions},
		{ID: 88, Source: "CVE-2018-11235, CVE-2018-17456, CVE-2017-1000117", Title: "submodules whose names, URLs and paths lead up, are options or commands",
			Want: []Outcome{Rejected}, Run: submodules},
		{ID: 89, Source: "CVE-2024-32002, CVE-2025-48384, CVE-2024-32004, CVE-2024-32021, CVE-2022-39253", Title: "repositories that write hooks: .git in every spelling, paths with CR, links to it, alternates",
			Want: []Outcome{Rejected}, Run: gitDirectories},
		{ID: 90, Source: "go-git CVE-2023-49569, CVE-2025-21613, CVE-2026-45571", Title: "servers whose refs and trees lead out of the checkout",
			Want: []Outcome{Rejected}, Run: gitPaths},
		{ID: 91, Source: "CVE-2026-44740", Title: "links in circles and patterns that take for ever, in the context and in what ignores it",
			Want: []Outcome{Contained}, Run: loops},
		{ID: 92, Source: "buildah changelog", Title: "Dockerfile and ignore file as links to files of the host: neither read nor shown",
			Want: []Outcome{Rejected}, Run: dockerfileLinks},
		{ID: 93, Source: "class", Title: "ignored files copied by another name: case, Unicode, links, hard links, parents, slashes",
			Want: []Outcome{Contained}, Run: ignoreBypass},
		{ID: 94, Source: "class", Title: "ADD of addresses that are the metadata service, in every spelling, by redirect and by rebinding; other schemes",
			Want: []Outcome{Rejected}, Run: addForgery},
		{ID: 95, Source: "class", Title: "ADD unpacks archives whose names and links lead out, and what is two formats at once",
			Want: []Outcome{Contained}, Run: zipSlip},
		{ID: 96, Source: "class", Title: "FIFOs, sockets, devices and impossible names in the context",
			Want: []Outcome{Contained}, Run: specialFiles},
	}
	return inSection("2G", rows)
}

func gitOptions(t *Target) Outcome {
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	repo := g.Repository("r")
	repo.Commit("main", repo.File("Dockerfile", t.Expand("FROM $BUSYBOX\nRUN echo $NONCE\n")))
	for _, c := range []struct{ url, error string }{
		{repo.URL + "#--upload-pack=touch${IFS}$DIR/out/owned:d", `does not contain ref|invalid`},
		{repo.URL + "#-c:d", `does not contain ref|invalid`},
		{repo.URL + "?ref=--output=$DIR/out/owned", `does not contain ref|invalid`},
		{"git://" + deaf(t) + "/-r.git#main", `hung up|reset|EOF`},
		{"ssh://-oProxyCommand=touch$DIR/out/owned/r.git", `no host|invalid|lead`},
		{"git@-oProxyCommand=x:r.git", `no host|invalid|not found|lead`},
	} {
		t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD --keep-git-dir " + t.Here(c.url) + " /x\n", Within: 30 * time.Second}).Rejected(`Dockerfile:2: .*(` + c.error + `)`)
	}
	for _, c := range []string{"ext::sh -c touch% $DIR/out/owned", "fd::3", "file://$DIR/etc", repo.URL + "#--upload-pack=x", "git://-x/r.git"} {
		t.Build(Build{Context: t.Here(c)}).Rejected(`error: `)
		t.Build(Build{Dockerfile: "FROM c\nRUN echo $NONCE\n", Args: []string{"--build-context", "c=" + t.Here(c)}}).Rejected(`error: `)
	}
	if _, err := os.Lstat(filepath.Join(t.Dir, "out", "owned")); err == nil {
		t.Error("a command was run")
	}
	t.Build(Build{Context: repo.URL + "#main"}).Done(`\d $NONCE`) // the repository itself is good
	return Rejected
}

// deaf is a server that takes what it is told and hangs up.
func deaf(t *Target) string {
	l := t.Public()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = conn.Read(make([]byte, 1000))
			conn.Close()
		}
	}()
	return l.Addr().String()
}

func submodules(t *Target) Outcome {
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	good := g.Repository("good")
	commit := good.Commit("main", good.File("f", t.Nonce))
	module := func(name, path, url string) string {
		return fmt.Sprintf("[submodule %q]\n\tpath = %s\n\turl = %s\n", name, path, url)
	}
	for i, c := range []struct {
		modules, path string
		error         string
	}{
		{module("good", "sub", "../good.git"), "sub", ""},
		{module("../../../evil", "sub", "../good.git"), "sub", `invalid|submodule`},
		{module("good", "sub", "-u./payload"), "sub", `URL|scheme`},
		{module("good", "sub", "ext::sh -c touch% /tmp/owned"), "sub", `URL|scheme`},
		{module("good", "sub", "file://"+g.Root+"/good.git"), "sub", `scheme "file"`},
		{module("good", "sub", g.Root+"/good.git"), "sub", `URL|scheme|host`},
		{module("good", "sub", "ssh://-oProxyCommand=x/r"), "sub", `host`},
		{module("good", "../sub", "../good.git"), "sub", `submodule|path|no url`},
		{module("good", ".git/hooks", "../good.git"), "sub", `submodule|path|no url`},
	} {
		repo := g.Repository(fmt.Sprintf("r%d", i))
		repo.Commit("main", repo.File(".gitmodules", c.modules), hostile.TreeEntry{Mode: "160000", Name: c.path, Hash: commit})
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD --keep-git-dir " + repo.URL + " /x\nRUN cat /x/sub/f; find /x -name '*evil*' -o -path '*hooks/*'\n"})
		if c.error == "" {
			r.Done(`\d $NONCE`)
			continue
		}
		if r.Status != 0 {
			r.Rejected(`Dockerfile:[23]: .*(` + c.error + `|No such file)`)
			continue
		}
		// What the name alone says is nobody's path here.
		r.Hides(`\d\.\d{3} /x`)
		r.Shows(`\d $NONCE`)
	}
	return Rejected
}

// gitDirectories has trees that write to git's own directory.
func gitDirectories(t *Target) Outcome {
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	n := 0
	build := func(make func(*hostile.Repository) []hostile.TreeEntry) *Result {
		repo := g.Repository(fmt.Sprintf("r%d", n))
		n++
		repo.Commit("main", make(repo)...)
		return t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD --keep-git-dir " + repo.URL + " /x\nRUN find /x; echo $NONCE\n"})
	}
	for _, name := range []string{".git", ".GIT", ".Git"} {
		build(func(r *hostile.Repository) []hostile.TreeEntry {
			return []hostile.TreeEntry{r.Dir(name, r.Dir("hooks", r.File("post-checkout", "#!/bin/sh\ntouch /owned\n")))}
		}).Rejected(`invalid path "(?i:\.git)"`)
	}
	build(func(r *hostile.Repository) []hostile.TreeEntry { return []hostile.TreeEntry{r.Link(".git", "sub")} }).Rejected(`invalid path ".git"`)
	build(func(r *hostile.Repository) []hostile.TreeEntry {
		return []hostile.TreeEntry{r.Link(".gitmodules", "/etc/passwd")}
	}).Rejected(`invalid path ".gitmodules"`)
	// CVE-2024-32002: A is a link to .git where the file system knows no case.
	sub := g.Repository("sub")
	commit := sub.Commit("main", sub.Dir("y", sub.Dir("hooks", sub.File("post-checkout", "#!/bin/sh\ntouch /owned\n"))))
	modules := func(path string) string {
		return "[submodule \"x/y\"]\n\tpath = " + path + "\n\turl = ../sub.git\n"
	}
	build(func(r *hostile.Repository) []hostile.TreeEntry {
		return []hostile.TreeEntry{r.File(".gitmodules", modules("A/modules/x")), r.Link("a", ".git"), r.Dir("A", r.Dir("modules",
			hostile.TreeEntry{Mode: "160000", Name: "x", Hash: commit}))}
	}).Done(`\d /x/A/modules/x/y/hooks/post-checkout`, `\d /x/a$`)
	// CVE-2025-48384: a path that ends in CR, and a link of the name without.
	build(func(r *hostile.Repository) []hostile.TreeEntry {
		return []hostile.TreeEntry{r.File(".gitmodules", modules("\"sub\r\"")), r.Link("sub", ".git/modules/x/y/hooks"), {Mode: "160000", Name: "sub\r", Hash: commit}}
	}).Done(`\d /x/sub$`, `$NONCE`)
	// CVE-2024-32004, 2022-39253: objects of elsewhere. What is served is never a local clone.
	alternates := g.Repository("alternates")
	alternates.Commit("main", alternates.File("f", "x"))
	must(t, os.WriteFile(filepath.Join(g.Root, "alternates.git/objects/info/alternates"), []byte(t.Dir+"\n"), 0o644))
	r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD --keep-git-dir " + alternates.URL + " /x\nRUN find /x/.git -name alternates -o -path '*hooks*' -type f | wc -l | sed 's/^/odd: /'\n"})
	r.Done(`odd: 0`)
	return Rejected
}

func gitPaths(t *Target) Outcome {
	g := hostile.StartGit(t, hostile.Options{Listener: t.Public()})
	repo := g.Repository("r")
	outside := filepath.Join(t.Dir, "etc")
	repo.Commit("main", repo.File("f", t.Nonce))
	for branch, tree := range map[string][]hostile.TreeEntry{
		"up":           {repo.File("..", "x")},
		"up-directory": {repo.Dir("..", repo.File("x", "x"))},
		"slashes":      {repo.File("a/../../x", "x")},
		"absolute":     {repo.File(outside+"/x", "x")},
		"through":      {repo.Link("a", outside), repo.Dir("a", repo.File("x", "x"))},
		"over":         {repo.Link("a", outside+"/canary"), repo.File("a", "x")},
		"empty":        {repo.File("", "x")},
		"dot":          {repo.Dir(".", repo.File("x", "x"))},
	} {
		repo.Commit(branch, tree...)
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD " + repo.URL + "#" + branch + " /x\n"})
		r.Rejected(`Dockerfile:2: .*(invalid path|file exists|corrupt|malformed|upload-pack|hung up|fsck)`)
	}
	// Refs that lead up, of a server that checks nothing.
	lies := g.Repository("lies")
	g.Old("lies")
	commit := lies.Commit("main", lies.File("f", t.Nonce))
	for _, ref := range []string{"refs/heads/main", "refs/heads/../../config", "refs/heads/../../../../etc/passwd", "../../x", "refs/heads/-x", "HEAD/../config", "refs/heads/a\x1b[31m"} {
		g.On(hostile.Rule{Path: "/lies.git/info/refs", Times: 1, Do: hostile.Advertise(commit+" HEAD", commit+" "+ref)})
		name := strings.ReplaceAll(strings.TrimPrefix(ref, "refs/heads/"), "\x1b", "?")
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD --keep-git-dir " + lies.URL + "#" + name + " /x\n" +
			"RUN cat /x/f /x/.git/config; find / -xdev -name passwd -newer /x/f | wc -l\n"})
		if r.Status == 0 {
			r.Shows(`$NONCE`, `\[core\]`)
			continue
		}
		r.Rejected(`Dockerfile:2: .*(invalid git ref|does not contain ref|invalid ref)`)
	}
	if g.Asked("GET", "/lies.git/info/refs") == 0 {
		t.Fatal("nobody has asked for the refs")
	}
	t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD " + repo.URL + "#main /x\nRUN cat /x/f\n"}).Done(`\d $NONCE`)
	return Rejected
}

func loops(t *Target) Outcome {
	catastrophic := strings.Repeat("*a", 40) + "\n" + strings.Repeat("**/", 60) + "x\n" + strings.Repeat("[a-z]*", 40) + "!\n!" + strings.Repeat("?*", 50) + "\n"
	deep := strings.Repeat("a", 200)
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY . /all/\nCOPY **/*/**/*.x /some/\nCOPY " + strings.Repeat("*a", 30) + "* /globs/\n" +
			"COPY nonce loop1 /loops/\nRUN cat /all/nonce && ls /loops /all/d && cat /all/loop1; echo $NONCE\n",
		Files: map[string]string{".dockerignore": catastrophic, "d/" + deep: "x", "d/y.x": "x", deep + "b": "x"},
		Prepare: func(dir string) error {
			link := func(to, name string) error { return os.Symlink(to, filepath.Join(dir, name)) }
			return errors.Join(link("loop2", "loop1"), link("loop1", "loop2"), link(".", "self"), link("..", "d/up"), link("self/self/self/d/up/d", "round"))
		},
		Within: 30 * time.Second,
	})
	if r.Status != 0 { // a link in a circle that is named is an error
		r.Rejected(`Dockerfile:[345]: .*(too many levels|loop)`)
	}
	if r.Took > 15*time.Second {
		t.Errorf("it took %v", r.Took)
	}
	r = t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY . /all/\nRUN cat /all/nonce; readlink /all/loop1\n",
		Files:      map[string]string{".dockerignore": catastrophic, "d/" + deep: "x"},
		Prepare: func(dir string) error {
			return errors.Join(os.Symlink("loop2", filepath.Join(dir, "loop1")), os.Symlink("loop1", filepath.Join(dir, "loop2")))
		},
		Within: 30 * time.Second,
	})
	return r.Done(`$NONCE`, `loop2$`)
}

func dockerfileLinks(t *Target) Outcome {
	canary := filepath.Join(t.Dir, "canary")
	link := func(to, name string) func(string) error {
		return func(dir string) error { return os.Symlink(to, filepath.Join(dir, name)) }
	}
	for _, b := range []Build{
		{Prepare: link(canary, "Dockerfile")},
		{Prepare: link("../canary", "Dockerfile")},
		{Prepare: link(canary, "x"), Args: []string{"-f", "$DIR/ctx/x"}},
		{Prepare: func(dir string) error {
			return errors.Join(os.Symlink(t.Dir, filepath.Join(dir, "d")))
		}, Args: []string{"-f", "$DIR/ctx/d/canary"}},
		{Dockerfile: "FROM $BUSYBOX\nRUN true\n", Prepare: link(canary, ".dockerignore")},
		{Dockerfile: "FROM $BUSYBOX\nRUN true\n", Prepare: link("/proc/self/environ", "Dockerfile.dockerignore")},
	} {
		for i := range b.Args {
			b.Args[i] = t.Here(b.Args[i])
		}
		r := t.Build(b)
		r.Rejected(`leads out of the context|not found|no such file`)
		r.Hides(`kbuild-canary`)
	}
	return Rejected
}

func ignoreBypass(t *Target) Outcome {
	const hidden = "hidden-value-7d31"
	ignore := "secret\nSecret2\ndir/\ndir/inner\n**/*.key\ncaf\u00e9\n!dir/../keep\n/rooted\nlast/\\name\n"
	files := map[string]string{".dockerignore": ignore, "secret": hidden, "Secret2": hidden, "dir/inner": hidden, "dir/other": hidden, "deep/er/a.key": hidden,
		"caf\u00e9": hidden, "rooted": hidden, "keep": "kept"}
	links := func(dir string) error {
		at := func(name string) string { return filepath.Join(dir, name) }
		return errors.Join(os.Symlink("secret", at("link-file")), os.Symlink("dir", at("link-dir")), os.Symlink(".", at("link-self")),
			os.Symlink("deep/../dir/inner", at("link-up")), os.Link(at("secret"), at("hard-link")))
	}
	for _, source := range []string{"link-file", "link-dir/inner", "link-self/secret", "./dir/../secret", "lin?-dir", "link-up", "deep/er/*.key", "[s]ecret"} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nCOPY " + source + " /x/\nRUN grep -r . /x\n", Files: files, Prepare: links})
		if r.Status != 0 {
			r.Rejected(`Dockerfile:[23]: .*(not found|exit code: [12])`)
		}
		r.Hides(hidden)
	}
	r := t.Build(Build{
		Dockerfile: `FROM $BUSYBOX
COPY . /all/
COPY --parents ./d*r/./in* /parents/
RUN --mount=type=bind,target=/m cp -r /m /mounted; grep -rl hidden-value /all /parents /mounted | sort | sed 's/^/found /'; cat /all/nonce
`, Files: files, Prepare: links,
	})
	// A hard link is a file of its own name: that one is not ignored.
	r.Hides(`\d\.\d{3} found /(all|parents|mounted)/(secret|Secret2|dir|deep|caf|rooted|link)`)
	return r.Done(`$NONCE`, `\d\.\d{3} found /all/hard-link`)
}

func addForgery(t *Target) Outcome {
	for name, address := range map[string]string{"metadata": "169.254.169.254", "private": "10.20.30.40", "six": "fd00:ec2::254"} {
		t.Names.Set("094-"+name+".test", func() []string { return []string{address} })
	}
	t.Names.Set("094-rebind.test", rebinding())
	t.Names.Set("094-both.test", func() []string { return []string{"169.254.169.254", "10.20.30.40"} })
	t.Web.Handle("/094/hop", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusFound)
	})
	t.Web.Handle("/094/once", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // so that the name is looked up again
		fmt.Fprintln(w, "once")
	})
	hop := "http://" + PublicIPv4 + "/094/hop?to="
	const network = `denied|denies|refused|reset|no route|unreachable|no such host|invalid|unsupported|not supported|only http|lookup|private|timeout`
	for _, u := range []string{
		"http://169.254.169.254/latest/meta-data/", "http://2852039166/latest/", "http://0xa9fea9fe/",
		"http://[::ffff:a9fe:a9fe]/", "http://[fd00:ec2::254]/", "http://[64:ff9b::a9fe:a9fe]/", "http://127.1:2375/", "http://localhost:2375/x",
		"http://094-private.test/", "http://094-six.test/", "http://094-both.test/", hop + "http://169.254.169.254/",
		hop + "http://094-private.test/", hop + "file:///etc/passwd", hop + "gopher://094-private.test:53/_x", "http://094-metadata.test/r.git", "http://" + runnerIPv4 + "/x",
	} {
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD " + u + " /x\nRUN cat /x\n", Within: 30 * time.Second})
		r.Rejected(`Dockerfile:2: .*(` + network + `)`)
		r.Hides(`reached \d`)
	}
	for _, u := range []string{"file:///etc/passwd", "gopher://094-private.test/x"} {
		t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD " + u + " /x\nRUN cat /x\n"}).Rejected(`Dockerfile:2: `)
	}
	// The first answer is good, the second is not: whichever is dialled is judged.
	r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD http://094-rebind.test/094/once /one\nADD http://094-rebind.test/094/once /two\nRUN cat /one /two\n"})
	r.Rejected(`Dockerfile:3: .*(` + network + `)`)
	r.Hides(`reached \d`)
	if hits := t.Web.Hits(); !slices.Contains(hits, "/094/hop") || !slices.Contains(hits, "/094/once") {
		t.Fatal("neither a redirect nor the good answer was ever followed")
	}
	return Rejected
}

func zipSlip(t *Target) Outcome {
	var entries []hostile.Entry
	for i, name := range hostile.SlipNames() {
		if name != ".." && len(name) < 100 {
			entries = append(entries, hostile.Entry{Name: fmt.Sprintf("%s%d", name, i), Data: "slipped"})
		}
	}
	link := func(name, to string) hostile.Entry {
		return hostile.Entry{Name: name, Type: tar.TypeSymlink, Link: to}
	}
	hard := func(name, to string) hostile.Entry {
		return hostile.Entry{Name: name, Type: tar.TypeLink, Link: to}
	}
	names := hostile.Tar(t, entries...)
	links := hostile.Tar(t, link("esc", "../../../../.."), hostile.Entry{Name: "esc/tmp/through", Data: "slipped"},
		link("abs", t.Dir), hostile.Entry{Name: "abs/through", Data: "slipped"}, hostile.Entry{Name: "mark", Data: t.Nonce})
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nADD names.tar /x/y/\nADD links.tar /l/\nADD both.zip /z/\nADD text.tar /t/\nRUN cat /l/mark; find / -xdev -name '*slip*' -o -name through; ls -l /z /t\n",
		Files: map[string]string{"names.tar": string(names), "links.tar": string(links), "both.zip": "PK\x03\x04" + string(names),
			"text.tar": "not an archive ../../slip"},
	})
	out := r.Done(`\d $NONCE`, `\d /x/y/slip0`, `both.zip`, `text.tar`)
	for name, entry := range map[string][]hostile.Entry{
		"hard link out": {hard("x", "../../../../../"+t.Dir+"/canary")}, "hard link to /in": {hard("x", "/in/request.json")},
		"hard link through a link": {link("d", t.Dir), hard("x", "d/canary")}, "root as a link": {link("./", t.Dir)},
	} {
		t.Log(name)
		r := t.Build(Build{Dockerfile: "FROM $BUSYBOX\nADD a.tar /x/\nRUN cat /x/x\n", Files: map[string]string{"a.tar": string(hostile.Tar(t, entry...))}})
		r.Rejected(`Dockerfile:[23]: `)
	}
	return out
}

func specialFiles(t *Target) Outcome {
	var sockets []net.Listener
	defer func() {
		for _, s := range sockets {
			s.Close()
		}
	}()
	long := strings.Repeat("n", 255)
	r := t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY names /names/\nCOPY fifo /odd/\nRUN cat /names/nonce; ls -l /odd | sed 's/^/odd: /'; find /names -mindepth 1 -print0 | tr -dc '\\0' | wc -c | sed 's/^/names: /'\n",
		Prepare: func(dir string) error {
			at := func(name string) string { return filepath.Join(dir, name) }
			err := errors.Join(os.Mkdir(at("names"), 0o755), unix.Mkfifo(at("fifo"), 0o644), os.WriteFile(at("names/nonce"), []byte(t.Nonce), 0o644))
			for _, name := range []string{long, "new\nline", "\xff\xfe-not-utf8", "-rf", "*", "`touch x`", "\x1b[31mred", "::error::x", "a b", "\\", "$(id)", "..."} {
				err = errors.Join(err, os.WriteFile(at("names/"+name), []byte("x"), 0o644))
			}
			s, e := net.Listen("unix", at("socket"))
			sockets = append(sockets, s)
			return errors.Join(err, e)
		},
		Within: 30 * time.Second,
	})
	r.Done(`\d\.\d{3} names: 13`, `odd: p.* fifo`)
	if _, there := r.Image().Tree.Entries(flat.Options{})["/names/"+long]; !there {
		t.Error("a long name is not in the image")
	}
	r = t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nCOPY dev /odd/\nRUN cat /odd/zero | head -c 10 | wc -c\n",
		Prepare: func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "dev"), 0o755), unix.Mknod(filepath.Join(dir, "dev/zero"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))),
				unix.Mknod(filepath.Join(dir, "dev/disk"), unix.S_IFBLK|0o666, int(unix.Mkdev(8, 0))))
		},
		Within: 30 * time.Second,
	})
	if r.Status != 0 {
		r.Rejected(`Dockerfile:[23]: `)
	}
	// A socket and a FIFO where a file is wanted hold nothing up.
	r = t.Build(Build{
		Dockerfile: "FROM $BUSYBOX\nADD pipe.tar /x\nCOPY --chmod=644 pipe.tar /y\nRUN echo $NONCE\n",
		Prepare:    func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "pipe.tar"), 0o644) },
		Within:     30 * time.Second,
	})
	if r.Status != 0 {
		r.Rejected(`Dockerfile:2: `)
	}
	t.Build(Build{Prepare: func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "Dockerfile"), 0o644) }, Within: 30 * time.Second}).Rejected(`not a regular file`)
	return Contained
}
