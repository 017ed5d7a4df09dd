/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The listener's side of pins and redirects. It is part of kernel/seccomp.c, which includes it: the
 * structures of filters and notifications are not known outside.
 *
 * Neither request holds the lock of the notifications while it waits for a lock of the target's
 * memory. Other threads of the target may hold that one for long, and they must not keep a listener
 * from all its other notifications. What was found out about the memory is still right afterwards,
 * because the notification is still there: as long as its task waits in it, that task makes no other
 * call, an exec in particular, and what a seal has fixed stays as it is until the memory is gone.
 */

#ifdef CONFIG_SECCOMP_REDIRECT

#include <linux/atomic.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>

#include <asm/seccomp_redirect.h>

static inline struct seccomp_knotif *find_notification(struct seccomp_filter *filter, u64 id);

/*
 * Returns a number that no listener had before. Pins bear it, and outlive their listener; that of a
 * pointer could come again. A mapping that is no pin has none, which is 0.
 */
static unsigned long seccomp_redirect_new_mark(void)
{
	static atomic64_t last = ATOMIC64_INIT(0);

	return atomic64_inc_return(&last);
}

static int seccomp_redirect_check_flags(unsigned int flags)
{
	if ((flags & SECCOMP_FILTER_FLAG_REDIRECT) && !(flags & SECCOMP_FILTER_FLAG_NEW_LISTENER))
		return -EINVAL;
	return 0;
}

/* Whether a new filter and one of those that are there would both be made to redirect. */
static bool seccomp_redirect_is_second(const struct seccomp_filter *prepared,
				       const struct seccomp_filter *filter)
{
	if (!prepared->redirect)
		return false;
	while (filter && !filter->redirect)
		filter = filter->prev;
	return filter;
}

/* Returns a notification that has been received and waits for an answer, or an error. */
static struct seccomp_knotif *seccomp_redirect_find(struct seccomp_filter *filter, u64 id)
{
	struct seccomp_knotif *knotif = find_notification(filter, id);

	if (!knotif)
		return ERR_PTR(-ENOENT);
	if (knotif->state != SECCOMP_NOTIFY_SENT)
		return ERR_PTR(-EINPROGRESS);
	return knotif;
}

/* The same, with the lock of the notifications taken; it is not held when this is an error. */
static struct seccomp_knotif *seccomp_redirect_lock(struct seccomp_filter *filter, u64 id)
{
	struct seccomp_knotif *knotif;
	int ret = mutex_lock_interruptible(&filter->notify_lock);

	if (ret)
		return ERR_PTR(ret);
	knotif = seccomp_redirect_find(filter, id);
	if (IS_ERR(knotif))
		mutex_unlock(&filter->notify_lock);
	return knotif;
}

static long seccomp_notify_pin_install(struct seccomp_filter *filter, void __user *buf,
				       unsigned int size)
{
	struct seccomp_notif_pin_install __user *user = buf;
	struct seccomp_notif_pin_install pin = {};
	struct seccomp_knotif *knotif;
	struct task_struct *task;
	struct mm_struct *mm;
	struct file *memfd;
	bool choose;
	long ret;

	BUILD_BUG_ON(offsetof(typeof(pin), offset) != SECCOMP_NOTIFY_PIN_INSTALL_SIZE_VER0);
	BUILD_BUG_ON(sizeof(pin) != SECCOMP_NOTIFY_PIN_INSTALL_SIZE_VER1);

	if (size < SECCOMP_NOTIFY_PIN_INSTALL_SIZE_VER0 || size >= PAGE_SIZE)
		return -EINVAL;
	ret = copy_struct_from_user(&pin, sizeof(pin), buf, size);
	if (ret)
		return ret;
	if (pin.flags || !pin.size)
		return -EINVAL;
	if (!PAGE_ALIGNED(pin.target_addr) || !PAGE_ALIGNED(pin.size) || !PAGE_ALIGNED(pin.offset))
		return -EINVAL;
	if (pin.target_addr + pin.size < pin.target_addr || pin.offset + pin.size < pin.offset ||
	    pin.offset + pin.size > MAX_LFS_FILESIZE)
		return -EINVAL;
	choose = !pin.target_addr && size >= SECCOMP_NOTIFY_PIN_INSTALL_SIZE_VER1;

	/* What cannot be told where its pin is gets none. */
	if (choose && put_user(pin.target_addr, &user->target_addr))
		return -EFAULT;
	memfd = fget(pin.memfd);
	if (!memfd)
		return -EBADF;
	ret = -EINVAL;
	if (!seccomp_pin_sealed(memfd))
		goto out_file;

	knotif = seccomp_redirect_lock(filter, pin.id);
	if (IS_ERR(knotif)) {
		ret = PTR_ERR(knotif);
		goto out_file;
	}
	task = get_task_struct(knotif->task);
	mm = get_task_mm(task);
	mutex_unlock(&filter->notify_lock);

	ret = -ESRCH;
	if (!mm)
		goto out_task;
	ret = seccomp_pin_map(task, mm, memfd, choose ? -1UL : pin.target_addr, pin.size,
			      pin.offset, filter->notif->mark);
	mmput_async(mm);
	if (ret < 0)
		goto out_task;
	if (choose && put_user((__u64)ret, &user->target_addr)) {
		ret = -EFAULT;
		goto out_task;
	}

	/* Success says that the pin is in the memory of the task that still waits for an answer. */
	mutex_lock(&filter->notify_lock);
	knotif = seccomp_redirect_find(filter, pin.id);
	ret = PTR_ERR_OR_ZERO(knotif);
	mutex_unlock(&filter->notify_lock);
out_task:
	put_task_struct(task);
out_file:
	fput(memfd);
	return ret;
}

static int seccomp_redirect_check_request(const struct seccomp_notif_send_redirect *request,
					  bool names_memfd)
{
	unsigned int i;

	if (request->flags != SECCOMP_REDIRECT_FLAG_CONTINUE)
		return -EINVAL;
	if (!request->args_mask || request->args_mask >> SECCOMP_REDIRECT_ARGS)
		return -EINVAL;
	if (request->ptr_mask & ~request->args_mask)
		return -EINVAL;
	if (request->memfd && !names_memfd)
		return -EINVAL;
	for (i = 0; i < SECCOMP_REDIRECT_ARGS; i++)
		if (!(request->ptr_mask & BIT(i)) != !request->ptr_len[i])
			return -EINVAL;
	return 0;
}

/* Each whole access lies in one pin: of the memfd that was named, or of this listener. */
static int seccomp_redirect_check_pointers(struct seccomp_filter *filter, struct mm_struct *mm,
					   const struct seccomp_notif_send_redirect *request,
					   struct file *memfd)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < SECCOMP_REDIRECT_ARGS && !ret; i++)
		if (request->ptr_mask & BIT(i))
			ret = seccomp_pin_covers(mm, request->args[i], request->ptr_len[i], memfd,
						 filter->notif->mark);
	return ret;
}

static long seccomp_notify_send_redirect(struct seccomp_filter *filter, void __user *buf,
					 unsigned int size)
{
	struct seccomp_notif_send_redirect request = {};
	struct seccomp_knotif *knotif;
	struct file *memfd = NULL;
	struct mm_struct *mm;
	unsigned int i;
	long ret;

	BUILD_BUG_ON(sizeof(request) != SECCOMP_NOTIFY_SEND_REDIRECT_SIZE_VER0);

	if (size < SECCOMP_NOTIFY_SEND_REDIRECT_SIZE_VER0 || size >= PAGE_SIZE)
		return -EINVAL;
	ret = copy_struct_from_user(&request, sizeof(request), buf, size);
	if (ret)
		return ret;
	ret = seccomp_redirect_check_request(&request, filter->redirect);
	if (ret)
		return ret;
	if (request.ptr_mask && filter->redirect) {
		memfd = fget(request.memfd);
		if (!memfd)
			return -EBADF;
		ret = -EINVAL;
		if (!seccomp_pin_sealed(memfd))
			goto out_file;
	}

	knotif = seccomp_redirect_lock(filter, request.id);
	if (IS_ERR(knotif)) {
		ret = PTR_ERR(knotif);
		goto out_file;
	}
	if (!seccomp_redirect_possible(knotif->data)) {
		mutex_unlock(&filter->notify_lock);
		ret = -EOPNOTSUPP;
		goto out_file;
	}
	if (request.ptr_mask) {
		mm = get_task_mm(knotif->task);
		mutex_unlock(&filter->notify_lock);
		ret = -EFAULT;
		if (!mm)
			goto out_file;
		ret = seccomp_redirect_check_pointers(filter, mm, &request, memfd);
		mmput_async(mm);
		if (ret)
			goto out_file;
		/* It may have been answered meanwhile, or be gone. */
		knotif = seccomp_redirect_lock(filter, request.id);
		if (IS_ERR(knotif)) {
			ret = PTR_ERR(knotif);
			goto out_file;
		}
	}

	for (i = 0; i < SECCOMP_REDIRECT_ARGS; i++)
		knotif->redirect.args[i] = request.args[i];
	knotif->redirect.mask = request.args_mask;
	knotif->redirect.pointers = request.ptr_mask;
	knotif->state = SECCOMP_NOTIFY_REPLIED;
	knotif->error = 0;
	knotif->val = 0;
	knotif->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	if (filter->notif->flags & SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
		complete_on_current_cpu(&knotif->ready);
	else
		complete(&knotif->ready);
	mutex_unlock(&filter->notify_lock);
out_file:
	if (memfd)
		fput(memfd);
	return ret;
}

/*
 * When a listener receives a notification. It may be again, after an answer that another thread gave
 * without having received it: what that one replaced does not count.
 */
static void seccomp_redirect_forget(struct seccomp_knotif *knotif)
{
	knotif->redirect.mask = 0;
}

/* In the task, when it has an answer. */
static void seccomp_redirect_take(const struct seccomp_knotif *knotif)
{
	if (knotif->redirect.mask && (knotif->flags & SECCOMP_USER_NOTIF_FLAG_CONTINUE))
		seccomp_redirect_begin(&knotif->redirect);
}

/*
 * What a call ends with. A signal that comes before the listener has received it comes as if it had
 * come before the call: that is made after the handler, whatever the handler was installed with, and
 * no program finds that a call was interrupted which never waits for anything.
 */
static int seccomp_redirect_interrupted(const struct seccomp_filter *filter,
					const struct seccomp_knotif *knotif, int err)
{
	if (filter->redirect && knotif->state == SECCOMP_NOTIFY_INIT && err == -ERESTARTSYS)
		return -ERESTARTNOINTR;
	return err;
}

/* Whether the answer was a redirect, which the other filters have to judge. To be asked once. */
static bool seccomp_redirect_is_unjudged(void)
{
	bool unjudged = current->seccomp.redirect.unjudged;

	current->seccomp.redirect.unjudged = false;
	return unjudged;
}

/*
 * Runs all filters but the one whose listener has redirected a call. What they would forbid if the
 * program itself made the call with these arguments, a redirect does not get: not past those outside,
 * which some other supervisor relies on, and not past those inside, by which the program has confined
 * itself.
 *
 * When a tracer has already been asked about this call, one that is inside is not asked again. It has
 * had its say, which the listener has then judged.
 */
static u32 seccomp_redirect_judge(const struct seccomp_data *call, bool traced,
				  struct seccomp_filter **match)
{
	struct seccomp_filter *filter = READ_ONCE(current->seccomp.filter);
	struct seccomp_filter *judged = *match;
	u32 ret = SECCOMP_RET_ALLOW;
	bool inside = true;

	*match = NULL;
	for (; filter; filter = filter->prev) {
		u32 cur;

		if (filter == judged) {
			inside = false;
			continue;
		}
		cur = bpf_prog_run_pin_on_cpu(filter->prog, call);
		if (traced && inside && ACTION_ONLY(cur) == ACTION_ONLY(SECCOMP_RET_TRACE))
			continue;
		if (ACTION_ONLY(cur) < ACTION_ONLY(ret)) {
			ret = cur;
			*match = filter;
		}
	}
	return ret;
}

/* Whether a tracer has left a call as it was when the filters judged it. */
static bool seccomp_redirect_is_unchanged(const struct seccomp_data *judged)
{
	struct seccomp_data call;

	memset(&call, 0, sizeof(call));
	populate_seccomp_data(&call);
	return !memcmp(&call, judged, sizeof(call));
}

#else /* CONFIG_SECCOMP_REDIRECT */

static unsigned long seccomp_redirect_new_mark(void)
{
	return 0;
}

static bool seccomp_redirect_is_second(const struct seccomp_filter *prepared,
				       const struct seccomp_filter *filter)
{
	return false;
}

static int seccomp_redirect_check_flags(unsigned int flags)
{
	return 0;
}

static long seccomp_notify_pin_install(struct seccomp_filter *filter, void __user *buf,
				       unsigned int size)
{
	return -EINVAL;
}

static long seccomp_notify_send_redirect(struct seccomp_filter *filter, void __user *buf,
					 unsigned int size)
{
	return -EINVAL;
}

static void seccomp_redirect_forget(struct seccomp_knotif *knotif)
{
}

static void seccomp_redirect_take(const struct seccomp_knotif *knotif)
{
}

static int seccomp_redirect_interrupted(const struct seccomp_filter *filter,
					const struct seccomp_knotif *knotif, int err)
{
	return err;
}

static bool seccomp_redirect_is_unchanged(const struct seccomp_data *judged)
{
	return false;
}

static bool seccomp_redirect_is_unjudged(void)
{
	return false;
}

static u32 seccomp_redirect_judge(const struct seccomp_data *call, bool traced,
				  struct seccomp_filter **match)
{
	return SECCOMP_RET_ALLOW;
}

#endif /* CONFIG_SECCOMP_REDIRECT */
