// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pins: mappings of a listener's memory in the address space of another task.
 *
 * A pin is made in one piece. There is no moment at which it is there and not sealed, or could be
 * anything but read: its flags are complete before anybody can find it. Nothing is remembered about
 * pins but what the mapping itself says. So a pin ends with its memory, a fork inherits it, an exec
 * loses it, and there is nothing to be freed or to go stale.
 */

#include <linux/fs.h>
#include <linux/fsnotify.h>
#include <linux/memfd.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/sched/coredump.h>
#include <linux/sched/signal.h>
#include <linux/seccomp_redirect.h>
#include <linux/security.h>
#include <linux/shmem_fs.h>

#include "internal.h"

/*
 * VM_DONTEXPAND is there because it keeps mappings from being merged: each install is one pin, also
 * next to another of the same memfd. VM_SHARED, although nobody can write, keeps debuggers from
 * getting a copy of their own to write to. What is in a pin is the listener's, and not to be found in
 * a core file of the task: VM_DONTDUMP.
 */
#define PIN_FLAGS	(VM_READ | VM_MAYREAD | VM_SHARED | VM_MAYSHARE | VM_SEALED | \
			 VM_DONTEXPAND | VM_DONTDUMP | VM_SOFTDIRTY)

/* What a pin is known by, and what must not be there. */
#define PIN_MUST	(VM_READ | VM_SHARED | VM_SEALED)
#define PIN_MUST_NOT	(VM_WRITE | VM_MAYWRITE | VM_EXEC)

/**
 * seccomp_pin_sealed - whether a file is a memfd that can be written by old mappings only
 * @memfd: any file
 *
 * Those with huge pages do not count. Their mappings are another file system's, and have other
 * business with what we mark pins by.
 */
bool seccomp_pin_sealed(struct file *memfd)
{
	long seals;

	if (!shmem_file(memfd))
		return false;
	seals = memfd_fcntl(memfd, F_GET_SEALS, 0);
	return seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

/*
 * Returns where there is room, from the side that the task's own mappings come from. Above a pin
 * there is always the gap that a stack keeps when it grows.
 */
static unsigned long seccomp_pin_room(struct mm_struct *mm, unsigned long size)
{
	unsigned long lowest = max(PAGE_ALIGN(mmap_min_addr), PAGE_SIZE);
	unsigned long whole = size + stack_guard_gap;
	MA_STATE(mas, &mm->mm_mt, 0, 0);

	if (whole < size)
		return -ENOMEM;
	if (test_bit(MMF_TOPDOWN, &mm->flags)) {
		if (mm->mmap_base > lowest &&
		    !mas_empty_area_rev(&mas, lowest, mm->mmap_base - 1, whole))
			return mas.last + 1 - whole;
		mas_reset(&mas);
	} else {
		lowest = max(lowest, mm->mmap_base);
	}
	if (lowest < mm->task_size && !mas_empty_area(&mas, lowest, mm->task_size - 1, whole))
		return mas.index;
	return -ENOMEM;
}

/* With the lock of the memory held for writing. Returns the address. */
static long seccomp_pin_insert(struct task_struct *task, struct mm_struct *mm, struct file *memfd,
			       unsigned long addr, unsigned long size, unsigned long offset,
			       unsigned long mark)
{
	unsigned long pages = size >> PAGE_SHIFT;
	struct vm_area_struct *vma;
	long ret;

	if (addr == -1UL) {
		addr = seccomp_pin_room(mm, size);
		if (IS_ERR_VALUE(addr))
			return addr;
	}
	if (size > mm->task_size || addr > mm->task_size - size)
		return -ENOMEM;
	if (find_vma_intersection(mm, addr, addr + size))
		return -EEXIST;
	/* The limits are those of the task that has to live with it. */
	if (mm->map_count > sysctl_max_map_count)
		return -ENOMEM;
	if (mm->total_vm + pages > task_rlimit(task, RLIMIT_AS) >> PAGE_SHIFT)
		return -ENOMEM;

	vma = vm_area_alloc(mm);
	if (!vma)
		return -ENOMEM;
	vma_set_range(vma, addr, addr + size, offset >> PAGE_SHIFT);
	vm_flags_init(vma, PIN_FLAGS);
	vma->vm_page_prot = vm_get_page_prot(PIN_FLAGS);
	vma->vm_file = get_file(memfd);
	ret = mmap_file(memfd, vma);
	if (ret)
		goto free;
	ret = -EACCES;
	if (vma->vm_file != memfd || vma->vm_private_data || vma->vm_flags != PIN_FLAGS)
		goto close;
	/* shmem has no use for it itself. */
	vma->vm_private_data = (void *)mark;
	ret = insert_vm_struct(mm, vma);
	if (ret)
		goto close;
	vm_stat_account(mm, vma->vm_flags, pages);
	vma_set_page_prot(vma);
	return addr;

close:
	vma_close(vma);
free:
	fput(vma->vm_file);
	vm_area_free(vma);
	return ret;
}

/**
 * seccomp_pin_map - makes a pin
 * @task: the task whose limits count
 * @mm: its memory, held by the caller
 * @memfd: what is to be mapped; seccomp_pin_sealed() has to be true of it
 * @addr: where; -1 looks for room
 * @size: bytes, a multiple of the page size
 * @offset: offset into @memfd, likewise
 * @mark: number of the listener that makes it, not 0
 *
 * The hooks are asked as about a mapping that current makes, who owns the memory that is mapped.
 *
 * Return: the address, or
 * -EACCES if the file cannot be read, and whatever a security module or a file watcher refuses with,
 * -EEXIST if something is mapped there,
 * -ENOMEM if there is no room, or a limit of the task is reached,
 * -EPERM if the address is too low for anybody to map,
 * -EINTR if current is being killed.
 */
long seccomp_pin_map(struct task_struct *task, struct mm_struct *mm, struct file *memfd,
		     unsigned long addr, unsigned long size, unsigned long offset,
		     unsigned long mark)
{
	long ret;

	if (!(memfd->f_mode & FMODE_READ))
		return -EACCES;
	ret = fsnotify_file_perm(memfd, MAY_READ);
	if (ret)
		return ret;
	ret = security_mmap_file(memfd, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE);
	if (ret)
		return ret;
	if (addr != -1UL) {
		/* Not even for those who may: it is another's null pointer. */
		if (addr < mmap_min_addr)
			return -EPERM;
		ret = security_mmap_addr(addr);
		if (ret)
			return ret;
	}
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	ret = seccomp_pin_insert(task, mm, memfd, addr, size, offset, mark);
	mmap_write_unlock(mm);
	return ret;
}

static bool seccomp_pin_holds(const struct vm_area_struct *vma, unsigned long addr,
			      unsigned long size, const struct file *memfd, unsigned long mark)
{
	if (addr < vma->vm_start || addr >= vma->vm_end || size > vma->vm_end - addr)
		return false;
	if ((vma->vm_flags & PIN_MUST) != PIN_MUST || (vma->vm_flags & PIN_MUST_NOT))
		return false;
	if (!vma->vm_file || !shmem_file(vma->vm_file))
		return false;
	if (memfd && file_inode(vma->vm_file) != file_inode(memfd))
		return false;
	/* A task that got hold of the memfd could map and seal it itself, at another offset. */
	return vma->vm_private_data == (void *)mark;
}

/**
 * seccomp_pin_covers - whether an access lies in one pin
 * @mm: where, held by the caller
 * @addr: first byte
 * @size: how many, not 0
 * @memfd: what has to be mapped there; NULL for anything
 * @mark: number of the listener that has to have made the pin
 *
 * A mapping is looked at under its own lock where that is to be had: the lock of the whole memory
 * may be held for long by another thread of the target.
 *
 * Return: 0, -EFAULT if it does not, or -EINTR if a signal came first.
 */
int seccomp_pin_covers(struct mm_struct *mm, unsigned long addr, unsigned long size,
		       struct file *memfd, unsigned long mark)
{
	struct vm_area_struct *vma;
	bool holds;

#ifdef CONFIG_PER_VMA_LOCK
	vma = lock_vma_under_rcu(mm, addr);
	if (vma) {
		holds = seccomp_pin_holds(vma, addr, size, memfd, mark);
		vma_end_read(vma);
		return holds ? 0 : -EFAULT;
	}
#endif
	/* So that a listener can give up on a target that has the lock held. */
	if (down_read_interruptible(&mm->mmap_lock))
		return -EINTR;
	vma = vma_lookup(mm, addr);
	holds = vma && seccomp_pin_holds(vma, addr, size, memfd, mark);
	mmap_read_unlock(mm);
	return holds ? 0 : -EFAULT;
}
