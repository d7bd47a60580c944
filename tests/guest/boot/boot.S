# A program that a machine's BIOS starts from a disk's first sector or from a CD. It says
# LABEL on the serial port, again and again. From a disk it also counts in the disk's
# second sector: it reads the number, looks whether the sector holds nothing else, says it,
# and writes the next. "BAD" is a sector that holds something else, "ERROR" a request that
# failed. It needs no driver but the BIOS's, which knows virtio, SATA and IDE.
	.code16
	.globl _start
_start:
	ljmp $0, $begin
begin:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movw $0x7c00, %sp
	sti
	cld
	movb %dl, drive
again:
	hlt
	movw $label, %si
	call text
.ifdef DISK
	movb $0x42, %ah
	call disk
	movl buffer, %eax
	movl %eax, number
	movw $buffer, %di
	movw $128, %cx
	repe scasl
	je same
	movw $bad, %si
	call text
same:
	movl number, %eax
	call hex
	incl number
	movl number, %eax
	movw $buffer, %di
	movw $128, %cx
	rep stosl
	movw $0x4300, %ax
	call disk
.endif
	movw $line, %si
	call text
	jmp again

# disk does what is in ah.
disk:
	movb drive, %dl
	movw $packet, %si
	int $0x13
	jc failed
	ret
failed:
	movw $error, %si
	call text
	ret

# text says what is at si.
text:
	lodsb
	testb %al, %al
	jz said
	call letter
	jmp text
said:
	ret

# hex says eax.
hex:
	movw $8, %cx
digit:
	roll $4, %eax
	pushl %eax
	andb $15, %al
	cmpb $10, %al
	jb small
	addb $39, %al
small:
	addb $48, %al
	call letter
	popl %eax
	loop digit
	ret

letter:
	pushw %ax
	movw $0x3fd, %dx
full:
	inb %dx, %al
	testb $0x20, %al
	jz full
	popw %ax
	movw $0x3f8, %dx
	outb %al, %dx
	ret

label:	.asciz LABEL
bad:	.asciz "BAD "
error:	.asciz "ERROR "
line:	.asciz "\r\n"
drive:	.byte 0
number:	.long 0
	.balign 4
packet:	.byte 16, 0
	.word 1, 0x8000, 0
	.quad 1
	.set buffer, 0x8000
	.org 510
	.word 0xaa55
