package bundle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"drystone.example/drystone/backend/model"
)

// The kinds of items in an OVF (CIM_ResourceAllocationSettingData.ResourceType).
const (
	cpuItem    = "3"
	memoryItem = "4"
	nicItem    = "10"
	diskItem   = "17"
)

// An envelope is the part of an OVF descriptor that is in use.
type envelope struct {
	Files []struct {
		ID          string      `xml:"id,attr"`
		Href        string      `xml:"href,attr"`
		Compression string      `xml:"compression,attr"`
		Size        model.Bytes `xml:"size,attr"`
	} `xml:"References>File"`
	Disks   []diskElement `xml:"DiskSection>Disk"`
	Systems []struct {
		ID    string `xml:"id,attr"`
		Name  string `xml:"Name"`
		Notes string `xml:"AnnotationSection>Annotation"`
		Items []item `xml:"VirtualHardwareSection>Item"`
		Exact []struct {
			Key   string `xml:"key,attr"`
			Value string `xml:"value,attr"`
		} `xml:"VirtualHardwareSection>Config"`
		// Newer descriptors have what differs in elements of their own.
		Disks []item `xml:"VirtualHardwareSection>StorageItem"`
		Cards []item `xml:"VirtualHardwareSection>EthernetPortItem"`
	} `xml:"VirtualSystem"`
	Several *struct{} `xml:"VirtualSystemCollection"`
}

type diskElement struct {
	ID       string `xml:"diskId,attr"`
	File     string `xml:"fileRef,attr"`
	Parent   string `xml:"parentRef,attr"`
	Capacity string `xml:"capacity,attr"`
	Units    string `xml:"capacityAllocationUnits,attr"`
}

type item struct {
	Type       string `xml:"ResourceType"`
	SubType    string `xml:"ResourceSubType"`
	Quantity   string `xml:"VirtualQuantity"`
	Units      string `xml:"AllocationUnits"`
	Host       string `xml:"HostResource"`
	Connection string `xml:"Connection"`
	Address    string `xml:"Address"`
}

// unmarshalOVF reads what is understood of an OVF descriptor.
func unmarshalOVF(r io.Reader) (m Machine, err error) {
	var e envelope
	if err := xml.NewDecoder(io.LimitReader(r, maxDescription)).Decode(&e); err != nil {
		return m, model.Errorf(model.Invalid, "the descriptor of the OVA cannot be read: %w", err)
	}
	if e.Several != nil || len(e.Systems) > 1 {
		return m, model.Errorf(model.Invalid, "the OVA has several machines; only one with one machine is taken")
	}
	order := make([]string, 0, len(e.Disks)) // of the disks, as the machine has them
	for _, s := range e.Systems {
		m.Name, m.Description = cmp.Or(s.Name, s.ID), s.Notes
		for _, i := range slices.Concat(s.Items, s.Disks, s.Cards) {
			if id := m.take(i); id != "" {
				order = append(order, id)
			}
		}
		for _, c := range s.Exact {
			if strings.EqualFold(c.Key, "firmware") && strings.EqualFold(c.Value, "efi") {
				m.Firmware = "uefi"
			}
		}
	}
	if err := e.disks(&m, order); err != nil {
		return m, err
	}
	return m, m.check()
}

// take adds an item to the machine, or returns the identifier of the disk it is.
func (m *Machine) take(i item) (disk string) {
	switch i.Type {
	case cpuItem:
		if n, err := strconv.Atoi(i.Quantity); err == nil && n > 0 {
			m.CPUs = n
		}
	case memoryItem:
		if n, ok := quantity(i.Quantity, cmp.Or(i.Units, "MegaBytes")); ok {
			m.Memory = n
		}
	case diskItem:
		return i.Host[strings.LastIndex(i.Host, "/")+1:]
	case nicItem:
		if len(m.NICs) == model.MaxNICs {
			return ""
		}
		n := NIC{Network: i.Connection, Model: model.NICVirtio}
		if s := strings.ToLower(i.SubType); strings.HasPrefix(s, "e1000") {
			n.Model = model.NICE1000
		}
		if mac, err := model.ParseMAC(i.Address); err == nil {
			n.MAC = mac
		}
		m.NICs = append(m.NICs, n)
	}
	return ""
}

// disks finds the files of the disks, in the order of the machine's items; what no item
// names comes last.
func (e envelope) disks(m *Machine, order []string) error {
	at := func(id string) int {
		if i := slices.Index(order, id); i >= 0 {
			return i
		}
		return math.MaxInt
	}
	all := slices.Clone(e.Disks)
	slices.SortStableFunc(all, func(a, b diskElement) int { return cmp.Compare(at(a.ID), at(b.ID)) })
	for _, d := range all {
		size, ok := quantity(d.Capacity, cmp.Or(d.Units, "byte"))
		switch {
		case d.Parent != "":
			return model.Errorf(model.Invalid, "a disk in the OVA is only what differs from another; flatten it first")
		case d.File == "" && !ok:
			return model.Errorf(model.Invalid, "the descriptor of the OVA does not say how large a disk is")
		}
		disk := Disk{Size: size}
		for _, f := range e.Files {
			if f.ID != d.File || d.File == "" {
				continue
			}
			if f.Compression != "" && f.Compression != "identity" {
				return model.Errorf(model.Invalid, "the disk in the OVA is compressed; unpack it first")
			}
			disk.File, disk.FileSize = f.Href, f.Size
		}
		if d.File != "" && disk.File == "" {
			return model.Errorf(model.Invalid, "the descriptor of the OVA does not say where its disk is")
		}
		m.Disks = append(m.Disks, disk)
	}
	return nil
}

var power = regexp.MustCompile(`^byte\s*\*\s*2\^(10|20|30|40)$`)

// quantity reads a number of bytes in the units of an OVF.
func quantity(text, units string) (model.Bytes, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	shift := 0
	switch u := strings.ToLower(strings.TrimSpace(units)); u {
	case "byte", "bytes":
	case "kilobytes", "kb":
		shift = 10
	case "megabytes", "mb":
		shift = 20
	case "gigabytes", "gb":
		shift = 30
	default:
		found := power.FindStringSubmatch(u)
		if found == nil {
			return 0, false
		}
		shift, _ = strconv.Atoi(found[1]) // the expression has numbers only
	}
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, false
	}
	return model.Bytes(n << shift), true
}

// MarshalOVF is the machine as an OVF descriptor, for disks that are VMDKs.
func (m Machine) MarshalOVF() ([]byte, error) {
	var b bytes.Buffer
	networks := []string{}
	for _, n := range m.NICs {
		if !slices.Contains(networks, n.Network) {
			networks = append(networks, n.Network)
		}
	}
	err := ovf.Execute(&b, map[string]any{"M": m, "Networks": networks, "MiB": m.Memory >> 20})
	return b.Bytes(), err
}

// Manifest has the digests of an OVF descriptor and of the disks.
func (m Machine) Manifest(name string, descriptor []byte) []byte {
	sum := sha256.Sum256(descriptor)
	b := fmt.Appendf(nil, "SHA256(%s)= %x\n", name, sum)
	for _, d := range m.Disks {
		b = fmt.Appendf(b, "SHA256(%s)= %s\n", d.File, d.SHA256)
	}
	return b
}

var ovf = template.Must(template.New("ovf").Funcs(template.FuncMap{
	"x": func(s string) (string, error) {
		var b bytes.Buffer
		err := xml.EscapeText(&b, []byte(s))
		return b.String(), err
	},
	"add": func(a, b int) int { return a + b },
}).Parse(`<?xml version="1.0" encoding="UTF-8"?>
<Envelope ovf:version="1.0" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References>
{{- range $i, $d := .M.Disks}}
  <File ovf:id="file{{$i}}" ovf:href="{{x $d.File}}" ovf:size="{{printf "%d" $d.FileSize}}"/>
{{- end}}
 </References>
 <DiskSection>
  <Info>Disks</Info>
{{- range $i, $d := .M.Disks}}
  <Disk ovf:diskId="disk{{$i}}" ovf:fileRef="file{{$i}}" ovf:capacity="{{printf "%d" $d.Size}}" ovf:capacityAllocationUnits="byte" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
{{- end}}
 </DiskSection>
 <NetworkSection>
  <Info>Networks</Info>
{{- range .Networks}}
  <Network ovf:name="{{x .}}"><Description>{{x .}}</Description></Network>
{{- end}}
 </NetworkSection>
 <VirtualSystem ovf:id="{{x .M.Name}}">
  <Info>A machine</Info>
  <Name>{{x .M.Name}}</Name>
  <OperatingSystemSection ovf:id="1"><Info>Not known</Info></OperatingSystemSection>
{{- if .M.Description}}
  <AnnotationSection><Info>Description</Info><Annotation>{{x .M.Description}}</Annotation></AnnotationSection>
{{- end}}
  <VirtualHardwareSection>
   <Info>Hardware</Info>
   <System>
    <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
    <vssd:InstanceID>0</vssd:InstanceID>
    <vssd:VirtualSystemIdentifier>{{x .M.Name}}</vssd:VirtualSystemIdentifier>
    <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>
   </System>
   <Item>
    <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
    <rasd:ElementName>{{.M.CPUs}} processors</rasd:ElementName>
    <rasd:InstanceID>1</rasd:InstanceID>
    <rasd:ResourceType>3</rasd:ResourceType>
    <rasd:VirtualQuantity>{{.M.CPUs}}</rasd:VirtualQuantity>
   </Item>
   <Item>
    <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
    <rasd:ElementName>{{printf "%d" .MiB}} MiB of memory</rasd:ElementName>
    <rasd:InstanceID>2</rasd:InstanceID>
    <rasd:ResourceType>4</rasd:ResourceType>
    <rasd:VirtualQuantity>{{printf "%d" .MiB}}</rasd:VirtualQuantity>
   </Item>
   <Item>
    <rasd:Address>0</rasd:Address>
    <rasd:ElementName>SATA controller</rasd:ElementName>
    <rasd:InstanceID>3</rasd:InstanceID>
    <rasd:ResourceSubType>AHCI</rasd:ResourceSubType>
    <rasd:ResourceType>20</rasd:ResourceType>
   </Item>
{{- range $i, $d := .M.Disks}}
   <Item>
    <rasd:AddressOnParent>{{$i}}</rasd:AddressOnParent>
    <rasd:ElementName>Disk {{add $i 1}}</rasd:ElementName>
    <rasd:HostResource>ovf:/disk/disk{{$i}}</rasd:HostResource>
    <rasd:InstanceID>{{add $i 10}}</rasd:InstanceID>
    <rasd:Parent>3</rasd:Parent>
    <rasd:ResourceType>17</rasd:ResourceType>
   </Item>
{{- end}}
{{- range $i, $n := .M.NICs}}
   <Item>
    <rasd:Address>{{x (print $n.MAC)}}</rasd:Address>
    <rasd:AutomaticAllocation>{{not $n.Disconnected}}</rasd:AutomaticAllocation>
    <rasd:Connection>{{x $n.Network}}</rasd:Connection>
    <rasd:ElementName>Network card {{add $i 1}}</rasd:ElementName>
    <rasd:InstanceID>{{add $i 100}}</rasd:InstanceID>
    <rasd:ResourceSubType>E1000</rasd:ResourceSubType>
    <rasd:ResourceType>10</rasd:ResourceType>
   </Item>
{{- end}}
{{- if .M.Firmware.UEFI}}
   <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
{{- end}}
  </VirtualHardwareSection>
 </VirtualSystem>
</Envelope>
`))
