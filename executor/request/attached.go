package request

// Pushing is the payload of FramePush: the image, or the index of images, is in
// the store.
type Pushing struct {
	Descriptor
	Attached []Attached `json:"attached,omitempty"`
	// Exported are those of build's result.
	Exported []Descriptor `json:"exported,omitempty"`
}

// Attached is a manifest in the store that each repository of the destinations
// gets beside the image, under a tag of its own: a signed attestation, where
// cosign looks for it. It is pushed before the image.
type Attached struct {
	Descriptor
	Tag string `json:"tag"` // without a repository
}
