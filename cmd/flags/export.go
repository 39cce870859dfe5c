package flags

import (
	"encoding/csv"
	"strconv"
	"strings"
)

// exports carries out --output in docker's forms: each becomes what the flags
// of the same meaning say.
func (b *Build) exports() error {
	var pushed, kept bool
	for _, given := range b.compat.outputs {
		push, err := b.export(given)
		if err != nil {
			return err
		}
		pushed, kept = pushed || push, kept || !push
	}
	switch {
	case pushed && b.result.noPush:
		return usagef("leave one of them out", "--output=type=registry cannot be used with --no-push")
	case kept && !pushed && !b.compat.push:
		b.result.noPush = true // docker pushes what it is told to push
	}
	return nil
}

// export carries out one --output; push says that it is a push.
func (b *Build) export(given string) (push bool, err error) {
	if given != "" && !strings.ContainsAny(given, "=,") {
		// docker's short form: the files of the image in a directory, or a tar of them.
		given = "type=local"
	}
	attrs, err := attributes("output", given, "for example type=oci,dest=image,tar=false")
	if err != nil {
		return false, err
	}
	o := output{b: b, tar: true}
	for _, a := range attrs {
		if err := o.attribute(a[0], a[1]); err != nil {
			return false, err
		}
	}
	return o.finish(given)
}

// attributes reads key=value,key=value of a flag; a value with a comma is quoted as in
// CSV.
func attributes(flag, given, hint string) ([][2]string, error) {
	fields, err := csv.NewReader(strings.NewReader(given)).Read()
	if err != nil {
		return nil, usagef(hint, "--%s: %q: want type=TYPE[,KEY=VALUE...]", flag, given)
	}
	var list [][2]string
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if key = strings.TrimSpace(strings.ToLower(key)); !ok || key == "" {
			return nil, usagef(hint, "--%s: %q: want KEY=VALUE", flag, f)
		}
		list = append(list, [2]string{key, value})
	}
	return list, nil
}

// output is one --output on its way.
type output struct {
	b    *Build
	kind string
	dest string
	tar  bool
	push bool
}

// attribute takes one attribute.
func (o *output) attribute(key, value string) error {
	b := o.b
	var err error
	switch key {
	case "type":
		o.kind = value
	case "dest":
		o.dest = value
	case "tar":
		o.tar, err = boolean("output", key, value)
	case "push":
		o.push, err = boolean("output", key, value)
	case "name":
		b.addNames(value)
	case "compression":
		if value != "gzip" && value != "zstd" {
			return usagef("", "--output: compression=%s: not supported: want gzip or zstd", value)
		}
		err = agree(b, "compression", &b.result.compression, value)
	case "compression-level":
		b.result.level, err = strconv.Atoi(value)
		if err != nil {
			return usagef("", "--output: compression-level=%s: want a number", value)
		}
	case "oci-mediatypes":
		oci, err := boolean("output", key, value)
		if err != nil {
			return err
		}
		return agree(b, "image-format", &b.result.format, map[bool]string{true: "oci", false: "docker"}[oci])
	case "rewrite-timestamp":
		b.images.rewriteTimestamp, err = boolean("output", key, value)
	case "registry.insecure":
		b.remote.insecure, err = boolean("output", key, value)
	default:
		return o.further(key, value)
	}
	return err
}

// further takes annotations, and attributes that may only say what is done anyway.
func (o *output) further(key, value string) error {
	if level, name, ok := strings.Cut(key, "."); ok && strings.HasPrefix(level, "annotation") {
		kind := strings.TrimPrefix(strings.TrimPrefix(level, "annotation"), "-")
		if kind == "" {
			kind = "manifest"
		}
		o.b.images.annotations = append(o.b.images.annotations, kind+":"+name+"="+value)
		return nil
	}
	anyway, known := map[string]bool{
		"force-compression": false, "push-by-digest": false, "name-canonical": false, "unpack": false,
		"attestation-inline": false, "attestation-manifest": false, "oci-artifact": false,
		"store": true, "platform-split": true,
	}[key]
	if !known {
		return usagef("", "--output: %s: unknown attribute", key)
	}
	v, err := boolean("output", key, value)
	if err == nil && v != anyway {
		err = usagef("", "--output: %s=%s: not supported", key, value)
	}
	return err
}

// finish settles what the output is, once all attributes are known.
func (o *output) finish(given string) (push bool, err error) {
	r := &o.b.result
	if o.dest != "" && (o.kind == "registry" || o.kind == "image" || o.kind == "cacheonly") {
		return false, usagef("type=docker,dest=app.tar or type=oci,dest=image,tar=false write an image",
			"--output: type=%s writes no file: dest=%s", o.kind, o.dest)
	}
	switch o.kind {
	case "registry":
		return true, nil
	case "image":
		return o.push, nil
	case "cacheonly":
		return false, nil
	case "oci":
		if o.tar {
			return false, usagef("add tar=false for the layout's directory", "--output=type=oci: a tar of a layout is not supported yet")
		}
		return false, o.file("oci-layout-path", &r.files.Layout)
	case "docker":
		if o.dest == "" {
			return false, usagef("name a file, dest=app.tar, then docker load -i app.tar", "--output=type=docker: there is no docker here to load into")
		}
		if !o.tar {
			return false, usagef("", "--output=type=docker: tar=false is not supported")
		}
		return false, o.file("tar-path", &r.files.Tar)
	case "local", "tar":
		return false, usagef("type=docker,dest=app.tar or type=oci,dest=image,tar=false write an image",
			"--output: type=%s, the files of the image, is not supported yet", o.kind)
	case "":
		return false, usagef("", "--output: %q: type is missing", given)
	}
	return false, usagef("", "--output: type=%s: unknown: want registry, image, docker or oci", o.kind)
}

// file sets where the flag called name writes to.
func (o *output) file(name string, path *string) error {
	switch o.dest {
	case "":
		return usagef("", "--output=type=%s: dest is missing", o.kind)
	case "-":
		return usagef("name a file", "--output=type=%s: dest=-, standard output, is not supported", o.kind)
	}
	return agree(o.b, name, path, o.dest)
}

// agree sets the value of the flag called name, unless it was given another.
func agree(b *Build, name string, to *string, value string) error {
	if *to != "" && *to != value {
		return usagef("", "--output: %q, but --%s or another --output says %q", value, name, *to)
	}
	*to = value
	return nil
}

// addNames adds the names of an image to the destinations.
func (b *Build) addNames(value string) {
	for name := range strings.SplitSeq(value, ",") {
		if name != "" {
			b.result.destinations = append(b.result.destinations, name)
		}
	}
}
