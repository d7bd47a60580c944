// The objects of the API by short names. Their shapes are generated from
// docs/openapi.json (npm run api), which the server's own test keeps true.
import type { components, paths } from './schema';

type Schemas = components['schemas'];

export type Alarm = Schemas['Alarm'];
export type AuditRow = Schemas['AuditRow'];
export type Boot = Schemas['Boot'];
export type Cluster = Schemas['Cluster'];
export type Column = Schemas['Column'];
export type ConsoleSpec = Schemas['ConsoleSpec'];
export type ConsoleTicket = Schemas['ConsoleTicket'];

/** Who is at a console: a text message of its websocket. */
export interface ConsoleNotice {
  writes: boolean;
  writer: string;
  watchers: string[];
}

export type Disk = Schemas['Disk'];
export type DiskFrom = Schemas['DiskFrom'];
export type EventFrame = Schemas['EventFrame'];
export type FileRef = Schemas['FileRef'];
export type History = Schemas['History'];
export type ImportEvent = Schemas['ImportEvent'];
export type CDROM = Schemas['CDROM'];
export type LoginResult = Schemas['LoginResult'];
export type Member = Schemas['Member'];
export type MetricsFrame = Schemas['MetricsFrame'];
export type NewToken = Schemas['NewToken'];
export type Network = Schemas['Network'];
export type NetworkChange = Omit<Schemas['NetworkChange'], '$schema'>;
export type NetworkSpec = Omit<Schemas['NetworkSpec'], '$schema'>;
export type NIC = Schemas['NIC'];
export type Node = Schemas['Node'];
export type Pool = Schemas['Pool'];
export type PoolSize = Schemas['PoolSize'];
export type Spare = Schemas['Spare'];
export type Task = Schemas['Task'];
export type Upload = Schemas['Upload'];
export type UploadSpec = Omit<Schemas['UploadSpec'], '$schema'>;
export type User = Schemas['User'];
export type VM = Schemas['VM'];
export type VMHistory = Schemas['VMHistory'];
export type VMChange = Omit<Schemas['VMChange'], '$schema'>;
export type VMSpec = Schemas['VMSpec'];
export type Volume = Schemas['Volume'];

export type DiskState = Disk['state'];
export type MemberState = Member['state'];
export type TaskState = Task['state'];
export type Firmware = VM['firmware'];
export type Priority = VM['priority'];
export type VMState = VM['status']['state'];
export type VolumeState = Volume['state'];

export type PowerAction = 'start' | 'stop' | 'shutdown' | 'reset';
export type ImageFormat = NonNullable<UploadSpec['format']>;

export type MetricsTopic = MetricsFrame['topic'];
export type Topic = Schemas['LiveRequest']['topic'];
export type Frame = MetricsFrame | EventFrame;

/** What a GET of a path answers. */
export type Answer<P extends keyof paths> = paths[P] extends {
  get: { responses: { 200: { content: { 'application/json': infer X } } } };
}
  ? X
  : never;

/** The paths of lists, and what is in them. */
export type Item<P extends keyof paths> = Answer<P> extends { items: (infer X)[] } ? X : never;
