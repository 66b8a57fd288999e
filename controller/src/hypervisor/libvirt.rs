//! The domain of a [`Launch`] for libvirt, where that and not we start guests: a pure function.

use super::qemu::cmdline;
use super::{Boots, ConfigDrive, Launch, Link, Nic, PciAddress};
use crate::net::MacAddress;
use std::fmt::Write;
use std::path::Path;

/// libvirt knows where its host keeps firmware, and would prefer one that starts only what Microsoft has signed.
const FIRMWARE: &str = "    <firmware>
      <feature enabled='no' name='enrolled-keys'/>
      <feature enabled='no' name='secure-boot'/>
    </firmware>
";

/// The XML of a domain that boots what `launch` describes, with the instance's configuration and identity in these files.
///
/// libvirt binds passed-through functions to vfio-pci and gives them back (`managed='yes'`), and gives a virtual
/// function its MAC address if `macs` has one for it.
pub fn domain(
    launch: &Launch,
    kvm: bool,
    config_file: &Path,
    identity_file: Option<&Path>,
    macs: &[(PciAddress, MacAddress)],
) -> String {
    let mut devices = String::new();
    for nic in &launch.nics {
        devices += &match nic {
            Nic::Dataplane { link, mac } | Nic::Management { link, mac } => interface(link, *mac),
            Nic::Passthrough { address } => {
                let mac = macs.iter().find(|(known, _)| known == address).map(|(_, mac)| *mac);
                passed(*address, mac)
            }
        };
    }
    let mut files = String::new();
    match &launch.config_drive {
        None => {
            files += "  <sysinfo type='fwcfg'>\n";
            files += &entry("opt/slim/config", config_file);
            if let Some(file) = identity_file {
                files += &entry("opt/slim/identity", file);
            }
            files += "  </sysinfo>\n";
        }
        Some(ConfigDrive::Cd(file)) => devices += &disk(file, "cdrom", "raw", "sda", "sata"),
        Some(ConfigDrive::Disk(file)) => devices += &disk(file, "disk", "raw", "vdb", "virtio"),
    }
    let (firmware, boots) = match launch.firmware.as_ref().map(|firmware| &firmware.boots) {
        None => {
            let (initrd, cmdline) = (path(&launch.image.initramfs), text(&cmdline(launch, kvm)));
            let kernel = path(&launch.image.kernel);
            let direct = format!(
                "    <kernel>{kernel}</kernel>\n    <initrd>{initrd}</initrd>\n    <cmdline>{cmdline}</cmdline>\n"
            );
            ("", direct)
        }
        Some(Boots::Uki(file)) => (" firmware='efi'", format!("{FIRMWARE}    <kernel>{}</kernel>\n", path(file))),
        Some(Boots::Qcow2(file)) => {
            devices += &disk(file, "disk", "qcow2", "vda", "virtio");
            (" firmware='efi'", FIRMWARE.to_owned())
        }
    };
    let (kind, cpu) = match kvm {
        true => ("kvm", "host-passthrough"),
        false => ("qemu", "maximum"),
    };
    format!(
        "<domain type='{kind}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <vcpu>{vcpus}</vcpu>
  <os{firmware}>
    <type arch='x86_64' machine='q35'>hvm</type>
{boots}  </os>
{files}  <features>
    <acpi/>
  </features>
  <cpu mode='{cpu}'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{devices}    <serial type='pty'>
      <log file='{console}' append='off'/>
      <target port='0'/>
    </serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
",
        name = text(&launch.name),
        memory = launch.memory_mb,
        vcpus = launch.vcpus,
        console = path(&launch.console_log),
    )
}

fn entry(name: &str, file: &Path) -> String {
    format!("    <entry name='{name}' file='{}'/>\n", path(file))
}

/// A drive that is not written to.
fn disk(file: &Path, device: &str, format: &str, target: &str, bus: &str) -> String {
    format!(
        "    <disk type='file' device='{device}'>\n      <driver name='qemu' type='{format}'/>\n      <source \
         file='{}'/>\n      <target dev='{target}' bus='{bus}'/>\n      <readonly/>\n    </disk>\n",
        path(file)
    )
}

fn interface(link: &Link, mac: MacAddress) -> String {
    let (kind, source) = match link {
        Link::VhostUser { socket } => {
            // The switch listens, as with our own launcher.
            let path = path(socket);
            let source = format!(
                "      <source type='unix' path='{path}' mode='client'>\n        <reconnect enabled='yes' timeout='1'/>\n      \
                 </source>\n"
            );
            ("vhostuser", source)
        }
        Link::Tap { interface } => {
            let target = format!("      <target dev='{}' managed='no'/>\n", text(interface));
            ("ethernet", target)
        }
        // Without a cable, the interface is still there.
        Link::User { .. } | Link::Unconnected => ("user", String::new()),
    };
    let cable = match link {
        Link::Unconnected => "      <link state='down'/>\n",
        _ => "",
    };
    let depth = match link {
        Link::VhostUser { .. } => "      <driver rx_queue_size='1024' tx_queue_size='1024'/>\n",
        _ => "",
    };
    format!(
        "    <interface type='{kind}'>\n      <mac address='{mac}'/>\n{source}      <model type='virtio'/>\n{depth}{cable}      \
         <rom enabled='no'/>\n    </interface>\n"
    )
}

fn passed(address: PciAddress, mac: Option<MacAddress>) -> String {
    let source = format!("      <source>\n        {}\n      </source>\n", address.libvirt());
    match mac {
        // Only of a virtual function can the address be chosen.
        Some(mac) => format!(
            "    <interface type='hostdev' managed='yes'>\n      <mac address='{mac}'/>\n{}      <rom enabled='no'/>\n    \
             </interface>\n",
            source.replace("<address ", "<address type='pci' ")
        ),
        None => format!(
            "    <hostdev mode='subsystem' type='pci' managed='yes'>\n{source}      <rom enabled='no'/>\n    </hostdev>\n"
        ),
    }
}

fn path(path: &Path) -> String {
    text(&path.to_string_lossy())
}

/// `text` as it stands in XML, between tags or quotes.
fn text(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = match c {
            '&' => escaped.write_str("&amp;"),
            '<' => escaped.write_str("&lt;"),
            '>' => escaped.write_str("&gt;"),
            '\'' => escaped.write_str("&apos;"),
            '"' => escaped.write_str("&quot;"),
            c => escaped.write_char(c),
        };
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::{Firmware, Image};

    fn launch() -> Launch {
        let image = Image { kernel: "/images/nat/kernel".into(), initramfs: "/images/<nat>/initramfs".into() };
        let mut launch = Launch::new("nat-a", image, Path::new("/run/slim"));
        launch.nics = vec![
            Nic::Passthrough { address: "0000:03:10.2".parse().unwrap() },
            Nic::Passthrough { address: "0000:04:00.0".parse().unwrap() },
            Nic::Dataplane {
                link: Link::VhostUser { socket: "/run/slim/nat-a.in.sock".into() },
                mac: "52:54:00:01:00:0b".parse().unwrap(),
            },
        ];
        launch
    }

    #[test]
    fn a_domain_has_the_files_and_devices_of_its_launch() {
        let macs = [("0000:03:10.2".parse().unwrap(), "02:51:1a:00:00:01".parse().unwrap())];
        let identity = Path::new("/run/slim/it's.pem");
        let xml = domain(&launch(), true, Path::new("/run/slim/nat-a.toml"), Some(identity), &macs);
        for part in [
            "<domain type='kvm'>",
            "<initrd>/images/&lt;nat&gt;/initramfs</initrd>",
            "<entry name='opt/slim/config' file='/run/slim/nat-a.toml'/>",
            "<entry name='opt/slim/identity' file='/run/slim/it&apos;s.pem'/>",
            "<mac address='02:51:1a:00:00:01'/>",
            "<address type='pci' domain='0x0000' bus='0x03' slot='0x10' function='0x2'/>",
            "<hostdev mode='subsystem' type='pci' managed='yes'>",
            "<address domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>",
            "<source type='unix' path='/run/slim/nat-a.in.sock' mode='client'>",
            "<access mode='shared'/>",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
        let emulated = domain(&launch(), false, Path::new("c"), None, &macs);
        assert!(emulated.contains("<domain type='qemu'>") && emulated.contains("tsc=reliable"), "{emulated}");
        assert!(!emulated.contains("opt/slim/identity"));
    }

    #[test]
    fn firmware_and_config_drives_are_disks() {
        let mut launch = launch();
        let boots = Boots::Qcow2("/images/<nat>/disk.qcow2".into());
        launch.firmware = Some(Firmware { program: "/ovmf".into(), boots });
        launch.config_drive = Some(ConfigDrive::Cd("/run/cidata.iso".into()));
        let xml = domain(&launch, true, Path::new("c"), Some(Path::new("i")), &[]);
        for part in [
            "<os firmware='efi'>",
            "<feature enabled='no' name='secure-boot'/>",
            "<source file='/images/&lt;nat&gt;/disk.qcow2'/>",
            "<source file='/run/cidata.iso'/>\n      <target dev='sda' bus='sata'/>",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
        assert!(!xml.contains("<kernel>") && !xml.contains("fwcfg") && !xml.contains("<cmdline>"), "{xml}");
    }
}
