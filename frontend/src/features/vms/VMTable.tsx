import { Checkbox } from '@mantine/core';
import { IconArrowDown, IconArrowUp } from '@tabler/icons-react';
import {
  flexRender,
  getCoreRowModel,
  getSortedRowModel,
  useReactTable,
} from '@tanstack/react-table';
import type { Row, SortingState } from '@tanstack/react-table';
import { useVirtualizer } from '@tanstack/react-virtual';
import { useNavigate } from '@tanstack/react-router';
import { useEffect, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { VM } from '../../api/types';
import { liveColumns, useColumns } from './columns';
import { useListKeys } from './useListKeys';
import { VMMenu } from './VMMenu';
import classes from './vms.module.css';

const ROW_PX = 42;

interface Props {
  vms: VM[];
  filter: string;
  selected: ReadonlySet<string>;
  onSelect: (ids: ReadonlySet<string>) => void;
}

/**
 * The table of machines. Only rows in view exist, and their live numbers are not
 * React's. Sorted by a live number, rows move at most once in two seconds, and
 * not while a menu is open.
 */
export function VMTable({ vms, filter, selected, onSelect }: Props) {
  const { t } = useTranslation();
  const connection = useConnection();
  const navigate = useNavigate();
  const [sorting, setSorting] = useState<SortingState>([{ id: 'name', desc: false }]);
  const [menu, setMenu] = useState(false);
  const columns = useColumns();
  const data = useSnapshot(vms, sorting.some((s) => liveColumns.has(s.id)) && !menu);
  const table = useReactTable({
    data,
    columns,
    state: { sorting },
    onSortingChange: setSorting,
    getCoreRowModel: getCoreRowModel(),
    getSortedRowModel: getSortedRowModel(),
    getRowId: (vm) => vm.id,
  });
  const rows = table.getRowModel().rows;
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: 8,
  });
  const open = (vm: VM) =>
    void navigate({
      to: '/c/$cluster/vms/$vm',
      params: { cluster: connection.id, vm: vm.id },
    });
  const toggle = (id: string) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    onSelect(next);
  };
  const keys = useListKeys({
    count: rows.length,
    onMove: (i) => virtual.scrollToIndex(i),
    onToggle: (i) => rows[i] && toggle(rows[i].id),
    onOpen: (i) => rows[i] && open(rows[i].original),
  });
  const all = rows.length > 0 && rows.every((r) => selected.has(r.id));

  return (
    <div
      ref={scroller}
      className={classes.scroller}
      role="table"
      aria-label={t('nav.vms')}
      aria-rowcount={rows.length}
      tabIndex={0}
      onKeyDown={keys.onKeyDown}
    >
      <div className={classes.headRow} role="row">
        <div role="columnheader" className={classes.check}>
          <Checkbox
            size="xs"
            aria-label={t('vm.selectAll')}
            checked={all}
            indeterminate={!all && rows.some((r) => selected.has(r.id))}
            onChange={() => onSelect(new Set(all ? [] : rows.map((r) => r.id)))}
          />
        </div>
        {table.getFlatHeaders().map((h) => (
          <div
            key={h.id}
            role="columnheader"
            className={classes.head}
            data-column={h.id}
            aria-sort={ariaSort(h.column.getIsSorted())}
          >
            <button type="button" onClick={h.column.getToggleSortingHandler()}>
              <span>{flexRender(h.column.columnDef.header, h.getContext())}</span>
              {h.column.getIsSorted() === 'asc' && <IconArrowUp size={13} />}
              {h.column.getIsSorted() === 'desc' && <IconArrowDown size={13} />}
            </button>
          </div>
        ))}
        <span className={classes.menuCell} />
      </div>
      {rows.length === 0 && <p className={classes.nothing}>{t('vm.nothing', { filter })}</p>}
      <div style={{ height: virtual.getTotalSize(), position: 'relative' }}>
        {virtual.getVirtualItems().map((item) => {
          const row = rows[item.index];
          return (
            row && (
              <BodyRow
                key={row.id}
                row={row}
                top={item.start}
                active={keys.at === item.index}
                checked={selected.has(row.id)}
                onCheck={() => toggle(row.id)}
                onOpen={() => open(row.original)}
                onMenu={setMenu}
              />
            )
          );
        })}
      </div>
    </div>
  );
}

interface RowProps {
  row: Row<VM>;
  top: number;
  active: boolean;
  checked: boolean;
  onCheck: () => void;
  onOpen: () => void;
  onMenu: (open: boolean) => void;
}

function BodyRow({ row, top, active, checked, onCheck, onOpen, onMenu }: RowProps) {
  const { t } = useTranslation();
  const vm = row.original;
  return (
    <div
      className={classes.row}
      role="row"
      data-active={active || undefined}
      data-checked={checked || undefined}
      data-vm={vm.name}
      style={{ transform: `translateY(${top}px)`, height: ROW_PX }}
      onClick={onOpen}
    >
      <div role="cell" className={classes.check} onClick={(e) => e.stopPropagation()}>
        <Checkbox
          size="xs"
          aria-label={t('vm.select', { name: vm.name })}
          checked={checked}
          onChange={onCheck}
        />
      </div>
      {row.getVisibleCells().map((cell) => (
        <div key={cell.id} role="cell" className={classes.cell} data-column={cell.column.id}>
          {flexRender(cell.column.columnDef.cell, cell.getContext())}
        </div>
      ))}
      <div role="cell" className={classes.menuCell} onClick={(e) => e.stopPropagation()}>
        <VMMenu vm={vm} onOpen={onMenu} />
      </div>
    </div>
  );
}

/** The same rows as a new array every two seconds, so that live columns sort anew. */
function useSnapshot(vms: VM[], moving: boolean): VM[] {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!moving) return;
    const timer = setInterval(() => setTurn((n) => n + 1), 2000);
    return () => clearInterval(timer);
  }, [moving]);
  // eslint-disable-next-line react-hooks/exhaustive-deps -- a turn is what asks for a copy
  return useMemo(() => [...vms], [vms, turn]);
}

function ariaSort(sorted: false | 'asc' | 'desc'): 'none' | 'ascending' | 'descending' {
  if (sorted === false) return 'none';
  return sorted === 'asc' ? 'ascending' : 'descending';
}
