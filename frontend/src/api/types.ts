// The objects of the API. Their shapes follow backend/api/schema.

export type NodeId = string;

export interface Meta {
  product: string;
  version: string;
  api: number;
  cluster_id: string;
  cluster_name: string;
  node_id: NodeId;
  node_name: string;
  capabilities: string[];
}

export type Role = 'viewer' | 'operator' | 'admin' | 'owner';

export interface User {
  id: string;
  name: string;
  role: Role;
}

export interface Session {
  user: User;
  expires?: string;
}

export interface LoginResult extends Session {
  token: string;
}

export interface PoolSize {
  size_bytes: number;
  used_bytes: number;
  reserve_bytes: number;
}

export interface Cluster {
  id: string;
  name: string;
  version: string;
  leader: NodeId;
  quorum: boolean;
  nodes_total: number;
  nodes_up: number;
  vms_total: number;
  vms_running: number;
  volumes_total: number;
  volumes_unavailable: number;
  columns_total: number;
  columns_out_of_sync: number;
  pool: PoolSize;
  accel: string;
  hypervisor: boolean;
}

export interface Pool extends PoolSize {
  provisioned_bytes: number;
  disks_online: number;
  disks_total: number;
  columns_out_of_sync: number;
}

export interface Node {
  id: NodeId;
  name: string;
  address: string;
  api: string;
  voter: boolean;
  leader: boolean;
  up: boolean;
  since?: string;
  version: string;
  cpus: number;
  memory_bytes: number;
  hypervisor: boolean;
  vms_running: number;
  joined: string;
}

export type DiskState = 'online' | 'failed' | 'offline';

export interface Disk {
  id: string;
  node: NodeId;
  node_name: string;
  path: string;
  state: DiskState;
  size_bytes: number;
  used_bytes: number;
  checksum_errors: number;
  repaired: number;
  error?: string;
}

export type MemberState = 'active' | 'joining' | 'stale';

export interface Member {
  disk: string;
  node: NodeId;
  state: MemberState;
}

export interface Column {
  members: Member[];
}

export type VolumeState = 'healthy' | 'degraded' | 'unavailable';

export interface Volume {
  id: string;
  name: string;
  kind: 'disk' | 'image';
  size_bytes: number;
  used_bytes: number;
  copies: number;
  holder: NodeId;
  holder_name: string;
  purpose: string;
  generation: number;
  epoch: number;
  state: VolumeState;
  fill?: { done_bytes: number; total_bytes: number };
  attached_to?: string;
  created: string;
  columns_total: number;
  columns_out_of_sync: number;
  columns?: Column[];
}

export type VMState = 'stopped' | 'starting' | 'running' | 'stopping' | 'failed' | 'unknown';

export interface VMDisk {
  volume: string;
  name: string;
  size_bytes: number;
  used_bytes: number;
  state: VolumeState;
}

export interface FileRef {
  name: string;
  sha256: string;
  size_bytes: number;
}

export interface Boot {
  kernel: FileRef;
  initrd?: FileRef;
  append?: string;
}

export interface VM {
  id: string;
  name: string;
  cpus: number;
  memory_bytes: number;
  disks: VMDisk[];
  boot?: Boot;
  power: 'on' | 'off';
  node: NodeId;
  node_name: string;
  status: { state: VMState; node: NodeId; reason: string; since?: string };
  created: string;
}

export interface DiskFrom {
  size_bytes?: number;
  image?: string;
  volume?: string;
}

export interface VMSpec {
  name: string;
  cpus: number;
  memory_bytes: number;
  disks: DiskFrom[];
  boot?: Boot;
}

export type PowerAction = 'start' | 'stop' | 'shutdown' | 'reset';

export type TaskState = 'running' | 'done' | 'failed' | 'cancelled';

export interface Task {
  id: string;
  kind: string;
  object: string;
  state: TaskState;
  done_bytes: number;
  total_bytes: number;
  error: string;
  started: string;
  ended?: string;
}

export interface AuditRow {
  index: number;
  time: string;
  actor: { user: string; role?: string; address?: string };
  verb: string;
  object: string;
  result: string;
}

export interface NewToken {
  id: string;
  token: string;
  expires: string;
  uses: number;
}

export interface ImportEvent {
  phase?: string;
  done_bytes?: number;
  total_bytes?: number;
  volume?: Volume;
  error?: { code: string; detail: string };
}

export type ImageFormat = 'qcow2' | 'raw' | 'vmdk' | 'vhdx';

export interface ConsoleTicket {
  ticket: string;
  expires: string;
  url: string;
}

export type MetricsTopic = 'cluster' | 'nodes' | 'disks' | 'vms';
export type Topic = MetricsTopic | 'events';

export interface MetricsFrame {
  topic: MetricsTopic;
  seq: number;
  t: number;
  ids: string[];
  v: Record<string, (number | null)[]>;
  age: number[];
}

export interface EventFrame {
  topic: 'events';
  seq: number;
  t: number;
  kind: 'changed' | 'resync';
  objects?: string[];
}

export type Frame = MetricsFrame | EventFrame;

export interface History {
  topic: MetricsTopic;
  ids: string[];
  t: number[];
  series: Record<string, (number | null)[][]>;
}
