Console.WriteLine(typeof(IlgpuSae.Tensors.Tensor).Assembly.GetName().Name);
return 0;
